"""Parameter-efficient fine-tuning: adapters in a model, held to what they promise, and saved."""

from ptft.model.adapt.attach import adapter_names, attach, base_digest, merge, rebuild
from ptft.model.adapt.gate import check_trains
from ptft.model.adapt.reference import (
    Reference,
    check_merged,
    compare_outputs,
    reference_inputs,
    reference_outputs,
)
from ptft.model.adapt.saved import load_adapter, read_reference, save_adapter
from ptft.model.adapt.split import fuse_attention, split_attention

__all__ = [
    "Reference",
    "adapter_names",
    "attach",
    "base_digest",
    "check_merged",
    "check_trains",
    "compare_outputs",
    "fuse_attention",
    "load_adapter",
    "merge",
    "read_reference",
    "rebuild",
    "reference_inputs",
    "reference_outputs",
    "save_adapter",
    "split_attention",
]
