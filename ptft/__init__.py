"""Pretrain and fine-tune joint image-text encoders, and carry them unchanged to production.

Five artefacts; every verb of the command reads one and writes the next::

    recipe (YAML) -> run (checkpoints, metrics) -> model folder (the Hub repo) -> bento -> release

From Python, ``ptft.train``, ``ptft.evaluate``, ``ptft.load_model`` and ``ptft.export`` do what the
verbs do (:mod:`ptft.api`). Torch is imported when one is used.

Layers, imports run downwards only (``make check`` holds them)::

    cli                      one file a verb; heavy imports inside the verb
    api                      the verbs as functions, for scripts and notebooks
    mix | verify             means of the weights of several models | what is proved of an artefact
    compare | export | hub   which way wins | ONNX, parity, the model folder | push, pull
    train                    the one loop, for pretraining and fine-tuning
    evaluate | look          zero-shot, retrieval, linear probe | a page of a set of data
    objective | checkpoint   batch -> loss and scalars | save, load, resume exactly
    model                    the dual encoder: towers, projections, logit scale, head
    data | optim | distributed
    onnx                     the towers: checked, run within limits, held against golden embeddings
    preprocess               images and texts to arrays; no torch; shared with serving
    pages                    HTML and Markdown that nothing in them can break out of
    model_source             what a name leads to: a run, a checkpoint, a model folder, the Hub
    artifact                 file names and metadata of run and model folders
    recipe                   the schema of a recipe: load, override, dump
    client                   asks a running service; no torch
    compat                   quirks of libraries, each in one place
    files                    read within bounds, hashed, written whole; tensors in them
    errors                   the exception tree
"""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptft.api import evaluate, export, load_model, train

__all__ = ["__version__", "evaluate", "export", "load_model", "train"]

# Else onnxruntime, imported anywhere after this, leaves a device's id at home and calls there.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"


class _Verb(ModuleType):
    """A package that is called like the verb of its name: ``ptft.train`` is both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("ptft.api"), name)(*args, **kwargs)


class _Package(ModuleType):
    """This package: whoever first imports a package that is a verb, it can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "load_model":
        return importlib.import_module("ptft.api").load_model
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
