"""What a model is worth: retrieval, zero-shot, linear probe, and its own head; calibration."""

from ptft.evaluate.calibrate import calibrate_head
from ptft.evaluate.embed import SplitEmbeddings, embed_split, embed_texts
from ptft.evaluate.probe_head import probe_head
from ptft.evaluate.run import Figures, evaluate
from ptft.evaluate.tip_adapter import add_cache

__all__ = [
    "Figures",
    "SplitEmbeddings",
    "add_cache",
    "calibrate_head",
    "embed_split",
    "embed_texts",
    "evaluate",
    "probe_head",
]
