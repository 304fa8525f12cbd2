"""Modules of ptft that a batch, a recipe and a run cross on their ways; each way is listed.

Three real commands are traced by ``sys.setprofile``. The ways: ``batch``, pictures and captions in
tars, from the disk to the loss and its gradients, in the middle of a run; ``recipe``, ``ptft
train`` from the command line until the loop begins; ``export``, ``ptft export`` from the command
line to the model folder, in fp32. A module counts where one of its functions is called on the way;
being imported does not count.
"""

import contextlib
import inspect
import io
import os
import sys
import tarfile
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

import ptft
from ptft.data import open_split
from ptft.recipe import ScenesData
from tests.bench._parts import ptft as command

__all__ = ["BARS", "run"]

BARS = {"batch": ("<=", 29.0), "recipe": ("<=", 102.0), "export": ("<=", 95.0)}

_ROOT = str(Path(ptft.__file__).parent) + os.sep
_RECIPE = {
    "name": "crossed",
    "data": {"kind": "shards", "train": "train.tar", "test": "test.tar"},
    "model": {
        "image": "test_vit",
        "image_size": 32,
        "text": {"width": 64, "layers": 2, "heads": 2, "context_length": 32},
        "embed_dim": 32,
    },
    "optim": {"lr": 1e-3, "global_batch": 16, "samples_seen": 64, "precision": "fp32"},
    "evaluate": [{"kind": "retrieval", "split": "test"}],
    "run": {"dir": "run", "threads": 1, "workers": 0, "trackers": []},
}
_LOOP = ("train_steps", "Loop.run")
_NUMBER = 3  # of the batch that is followed: the first opens what the others find open


def run(*, smoke: bool = False) -> dict[str, float]:
    """Figures by name: modules on each way."""
    trace = _Trace()
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        for split in ("train", "test"):
            _write_tar(split)
        Path("crossed.yaml").write_text(yaml.safe_dump(_RECIPE), encoding="utf-8")
        with trace.following("recipe"):
            _ptft("train", "crossed.yaml")
        if not smoke:  # tracing makes an export several times as long
            with trace.following("export"):
                _ptft("export", "run", "model", "--precision", "fp32")
    ways = [way for way in BARS if way in trace.crossed]
    for way in ways:
        print(f"{way}: {len(trace.crossed[way])} modules")
        for module, functions in sorted(trace.crossed[way].items()):
            print(f"  {module:<36} {', '.join(sorted(functions))[:80]}")
    return {way: float(len(trace.crossed[way])) for way in ways}


def _write_tar(split: str) -> None:
    scenes = open_split(ScenesData(size=32, train=64, val=32, test=32), split)
    with tarfile.open(f"{split}.tar", "w") as tar:
        for index in range(len(scenes)):
            picture = io.BytesIO()
            scenes[index].image.save(picture, "PNG")
            caption = scenes.captions(index)[0].encode()
            for extension, data in (("png", picture.getvalue()), ("txt", caption)):
                member = tarfile.TarInfo(f"{index:04}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _ptft(*words: str) -> None:
    command(*words, smoke=True)  # in this process


class _Trace:
    """Functions of ptft by their module, on each way.

    Attributes:
        crossed: the ways, with their modules, with the functions called of each.
    """

    def __init__(self) -> None:
        self.crossed: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._way: str | None = None
        self._batches = 0
        self._within: list[FrameType] = []  # of a batch: what reads it, or the step
        self._importing = threading.local()

    @contextlib.contextmanager
    def following(self, way: str) -> Iterator[None]:
        """Note what is called, in every thread, until this ends or the way does."""
        self._way = way
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            self._way = None

    def _event(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event not in ("call", "return"):
            return
        code = frame.f_code
        if code.co_name == "<module>":
            depth = getattr(self._importing, "depth", 0)
            self._importing.depth = depth + (1 if event == "call" else -1)
        ours = code.co_filename.startswith(_ROOT) and code.co_filename.endswith(".py")
        if not ours or getattr(self._importing, "depth", 0):
            return
        path = code.co_filename.removeprefix(_ROOT).removesuffix(".py")
        module = f"ptft.{path.replace(os.sep, '.')}".removesuffix(".__init__")
        if event == "call":
            self._called(frame, module)
        elif self._within and frame is self._within[-1]:
            self._within.pop()

    def _called(self, frame: FrameType, module: str) -> None:
        code = frame.f_code
        if self._way == "recipe" and code.co_qualname in _LOOP:
            self._way = "loop"
        reads = module.startswith("ptft.data") and bool(code.co_flags & inspect.CO_GENERATOR)
        steps = code.co_qualname == "Step.__call__"
        if self._way == "loop" and (steps or (reads and not self._within)):
            self._within.append(frame)
            self._batches += not steps
        if self._way == "loop":
            if not self._within or self._batches != _NUMBER:
                return
            way = "batch"
        else:
            way = self._way or ""
        self.crossed[way][module].add(code.co_qualname)
