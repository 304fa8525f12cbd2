"""Pretrain and fine-tune joint image-text encoders, and carry them unchanged to production.

Five artefacts; every verb of the command reads one and writes the next::

    recipe (YAML) -> run (checkpoints, metrics) -> model folder (the Hub repo) -> bento -> release

Layers, imports run downwards only (``make check`` holds them)::

    cli                      one file a verb; heavy imports inside the verb
    mix | verify             means of the weights of several models | what is proved of an artefact
    compare | export | hub   which way wins | ONNX, parity, the model folder | push, pull
    train                    the one loop, for pretraining and fine-tuning
    evaluate | look          zero-shot, retrieval, linear probe | a page of a set of data
    objective | checkpoint   batch -> loss and scalars | save, load, resume exactly
    model                    the dual encoder: towers, projections, logit scale, head
    data | optim | distributed
    trial | golden | onnx    a first run within limits | embeddings to hold to | the towers
    preprocess               images and texts to arrays; no torch; shared with serving
    pages                    HTML and Markdown that nothing in them can break out of
    artifact                 file names and metadata of run and model folders; their digests
    recipe                   the schema of a recipe: load, override, dump
    compat | errors          library quirks in one place | the exception tree
"""

import os

__all__ = ["__version__"]

# Else onnxruntime, imported anywhere after this, leaves a device's id at home and calls there.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
