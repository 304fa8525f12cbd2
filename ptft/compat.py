"""Quirks of the libraries below ptft, each in one place.

torchvision's wheel on PyPI is built for CUDA. Beside a CPU build of torch its compiled
operators do not load, and its own import then fails because it describes operators that
were never defined. Neither open_clip nor timm uses them; declaring their signatures lets
torchvision be imported, and calling one still fails with torch's own message.
"""

from types import ModuleType

__all__ = ["import_open_clip", "import_timm", "prepare_torchvision"]

_DESCRIBED = ("nms", "qnms")  # the operators that torchvision/_meta_registrations.py describes
_kept: list[object] = []  # a Library undoes its definitions when it is collected


def prepare_torchvision() -> None:
    """Make ``import torchvision`` work beside a torch it was not compiled for."""
    import sys

    if "torchvision" in sys.modules or _kept:
        return
    import importlib.util
    from pathlib import Path

    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for operators in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(operators))
            return  # torchvision fits this torch
        except OSError:
            pass  # built for CUDA: it needs libraries that a CPU build of torch lacks
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _DESCRIBED:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


def import_open_clip() -> ModuleType:
    """Import open_clip (seconds, so never at the top of a module the command needs)."""
    prepare_torchvision()
    import open_clip

    return open_clip


def import_timm() -> ModuleType:
    """Import timm, which imports torchvision."""
    prepare_torchvision()
    import timm

    return timm
