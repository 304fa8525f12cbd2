"""What a model is worth: retrieval, zero-shot, linear probe, and its own head; calibration."""

from ptft.evaluate.calibrate import calibrate_head
from ptft.evaluate.counting import choose_counting
from ptft.evaluate.embed import SplitEmbeddings, embed_split, embed_texts
from ptft.evaluate.probe_head import probe_head
from ptft.evaluate.run import Figures, evaluate
from ptft.evaluate.thresholds import choose_thresholds, fit_bias
from ptft.evaluate.tip_adapter import add_cache

__all__ = [
    "Figures",
    "SplitEmbeddings",
    "add_cache",
    "calibrate_head",
    "choose_counting",
    "choose_thresholds",
    "embed_split",
    "embed_texts",
    "evaluate",
    "fit_bias",
    "probe_head",
]
