"""What an exported file costs in recall or accuracy, on the evaluations of the model's recipe."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptft.data import open_split
from ptft.errors import ExportError, PtftError, SampleError
from ptft.evaluate import evaluate
from ptft.evaluate.run import EmbeddedSplits, reads_of
from ptft.model import DualEncoder
from ptft.recipe import (
    TOWERS_OF,
    ProbeEvaluation,
    Recipe,
    RetrievalEvaluation,
    ZeroShotEvaluation,
    check_evaluations,
)
from ptft.speech import ProgressCallback

__all__ = ["Change", "Quality", "calibration_pictures"]

PICTURES = 128

_SHARES = ("i2t_recall@", "t2i_recall@", "top1", "top5", "mean_per_class")


@dataclass(frozen=True)
class Change:
    """How far figures moved when files took the towers' place.

    Attributes:
        figures: ``item figure`` -> the files' minus the checkpoint's, shares of 1.
        lost: points of 100 that the worst item lost: of the mean of its recalls, or of its top-1
            accuracy. Below 0 where every item gained.
    """

    figures: dict[str, float]
    lost: float


class Quality:
    """The evaluations of a recipe, run with a model's towers or with ONNX files in their place.

    Args:
        model: the checkpoint, on the CPU.
        recipe: whose evaluations; None where none is recorded.
        measure: whether to run them at all.
        count: told how many samples are done.

    Attributes:
        reason: why nothing is measured; None where it is.
    """

    def __init__(
        self,
        model: DualEncoder,
        recipe: Recipe | None,
        *,
        measure: bool = True,
        count: ProgressCallback | None = None,
    ) -> None:
        self._model = model
        self._count = count
        self._recipe = recipe
        # a probe is fitted to the whole training set, anew for each file
        self._items = [
            item
            for item in ([] if recipe is None else recipe.evaluate)
            if not isinstance(item, ProbeEvaluation)
        ]
        self._images: dict[Path | None, EmbeddedSplits] = {}
        self._texts: dict[Path | None, dict[bytes, Tensor]] = {}
        self._plain: dict[str, dict[str, float]] = {}
        self.reason: str | None = None
        if not measure:
            self.reason = "the export was told not to"
        elif recipe is None:
            self.reason = "no recipe is recorded"
        elif not recipe.evaluate:
            self.reason = "the recipe names no evaluation"
        elif not self._items:
            self.reason = "the recipe's evaluations are probes, which each file would fit anew"
        else:
            try:
                check_evaluations(recipe)
                self._plain = self._run(None, None)
            except PtftError:  # its message may name folders of this machine
                self.reason = "the data of the recipe's evaluations is not here"

    def reads(self, tower: str) -> bool:
        """Whether the evaluations depend on a tower, ``image`` or ``text``."""
        if self._recipe is None or self.reason is not None:
            return False
        queries = (RetrievalEvaluation, ZeroShotEvaluation)  # captions, or prompts of classes
        return any(
            tower in TOWERS_OF[reads_of(item, self._model)]
            or (tower == "text" and isinstance(item, queries))
            for item in self._items
        )

    def change(self, *, image: Path | None = None, text: Path | None = None) -> Change:
        """Run the evaluations with these files; a tower without one is the model's own.

        Raises:
            ExportError: onnxruntime cannot load a file.
            ModelError: a file gives embeddings that are not finite.
        """
        found = self._run(image, text)
        moved = {
            f"{name} {key}": value - self._plain[name][key]
            for name, figures in found.items()
            for key, value in figures.items()
        }
        lost = max(_headline(self._plain[name]) - _headline(found[name]) for name in found)
        return Change(moved, 100 * lost)

    def _run(self, image: Path | None, text: Path | None) -> dict[str, dict[str, float]]:
        assert self._recipe is not None
        results = evaluate(
            _Towers(self._model, image, text, self._texts.setdefault(text, {})),
            self._items,
            self._recipe.data,
            seed=self._recipe.seed,
            device="cpu",
            progress=self._count,
            embedded=self._images.setdefault(image, {}),
        )
        return {
            name: {key: value for key, value in figures.items() if key.startswith(_SHARES)}
            for name, figures in results.items()
        }


class _Towers(DualEncoder):
    """A model whose towers may be files; texts that ``known`` holds are not embedded again."""

    def __init__(
        self, model: DualEncoder, image: Path | None, text: Path | None, known: dict[bytes, Tensor]
    ) -> None:
        super().__init__(model.image, model.text, model.spec)
        self.logit_scale, self.logit_bias = model.logit_scale, model.logit_bias
        self.head = model.head
        self._files = {"image": image, "text": text}
        self._sessions: dict[str, Any] = {}
        self._known = known
        self.train(model.training)  # the towers are the model's own, and keep its mode

    def encode_image(self, images: Tensor) -> Tensor:
        if self._files["image"] is None:
            return super().encode_image(images)
        return self._embed("image", images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        key = np.int64(tokens.shape[1]).tobytes() + tokens.numpy().tobytes()
        if key not in self._known:
            if self._files["text"] is None:
                self._known[key] = super().encode_text(tokens)
            else:
                self._known[key] = self._embed("text", tokens)
        return self._known[key]

    def _embed(self, tower: str, batch: Tensor) -> Tensor:
        session = self._sessions.get(tower)
        if session is None:
            session = self._sessions[tower] = _open(self._files[tower])
        feed = {session.get_inputs()[0].name: batch.contiguous().numpy()}
        return torch.from_numpy(session.run(None, feed)[0])


def _open(path: Path | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base below Exception
        raise ExportError(f"{path}: onnxruntime cannot load it: {error}") from None


def calibration_pictures(model: DualEncoder, recipe: Recipe | None) -> NDArray[np.float32] | None:
    """``PICTURES`` of the training data, evenly spaced, without augmentation: float32 (N, 3, H, W)
    as the model takes them. None where there is no such data here."""
    preprocess = model.spec.preprocess
    found = []
    try:
        if recipe is None:
            return None
        samples = open_split(recipe.data, "train", seed=recipe.seed)
        for index in np.linspace(0, len(samples) - 1, min(PICTURES, len(samples))).astype(int):
            with contextlib.suppress(SampleError):
                picture = samples[int(index)].decoded(preprocess.reading)
                found.append(preprocess.pixels(picture))
    except PtftError:
        return None
    return preprocess.normalise(np.stack(found)) if found else None


def _headline(figures: dict[str, float]) -> float:
    """The figure of an item that decides: top-1 accuracy, or the mean of its recalls."""
    return figures["top1"] if "top1" in figures else sum(figures.values()) / len(figures)
