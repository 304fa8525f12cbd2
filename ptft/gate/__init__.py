"""Refuse a worse model before it serves: digest, golden embeddings, and figures of a small set of
the user's own, each with a bound. It runs where the service runs: onnxruntime or HTTP, no torch.
"""

from ptft.gate.bounds import GateBound, read_bounds
from ptft.gate.checks import Check
from ptft.gate.probe_set import ProbeSet, open_probe_set, read_probe_set
from ptft.gate.run import gate

__all__ = [
    "Check",
    "GateBound",
    "ProbeSet",
    "gate",
    "open_probe_set",
    "read_bounds",
    "read_probe_set",
]
