"""What a model is worth: retrieval, zero-shot, linear probe, and its own head; calibration."""

from ptft.evaluate.embed import SplitEmbeddings, embed_split, embed_texts
from ptft.evaluate.probe_head import probe_head
from ptft.evaluate.run import Figures, evaluate

__all__ = [
    "Figures",
    "SplitEmbeddings",
    "embed_split",
    "embed_texts",
    "evaluate",
    "probe_head",
]
