"""Samples and batches: where they come from, in which order, and how they are read ahead.

section of a recipe --open_split--> SampleSet --Order--> position of the run --loader--> Batch
"""

from ptft.data.open import kept_open, open_split, open_val
from ptft.data.reading.batch import Batch, BatchSpec, EvalBatch, KeptFeatures
from ptft.data.reading.loader import eval_batches, train_batches
from ptft.data.reading.order import Order, rng_for
from ptft.data.sample import Sample, SampleSet, contact_sheet

__all__ = [
    "Batch",
    "BatchSpec",
    "EvalBatch",
    "KeptFeatures",
    "Order",
    "Sample",
    "SampleSet",
    "contact_sheet",
    "eval_batches",
    "kept_open",
    "open_split",
    "open_val",
    "rng_for",
    "train_batches",
]
