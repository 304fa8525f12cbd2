"""What an exported file costs in recall, accuracy or mAP, on the evaluations of the recipe."""

import contextlib
from collections.abc import Sequence
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
from ptft.model.detector import PlaceAnswers
from ptft.onnx.boxes import place_boxes, place_logits
from ptft.recipe import (
    TOWERS_OF,
    DetectEvaluation,
    EvaluateItem,
    ProbeEvaluation,
    Recipe,
    RetrievalEvaluation,
    ZeroShotEvaluation,
    check_evaluations,
)
from ptft.speech import ProgressCallback

__all__ = ["Change", "Quality", "calibration_pictures"]

PICTURES = 128

_SHARES = (
    *("i2t_recall@", "t2i_recall@", "top1", "top5", "mean_per_class", "map", "ap50", "ap75"),
    *("micro_f1", "macro_f1"),
)
_DECIDING = ("map", "top1")  # where classes do not exclude each other there are both


@dataclass(frozen=True)
class Change:
    """How far figures moved when files took the towers' place.

    Attributes:
        figures: ``item figure`` -> the files' minus the checkpoint's, shares of 1.
        lost: points of 100 that the worst item lost: of the mean of its recalls, of its top-1
            accuracy, or of its mAP. Below 0 where every item gained.
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
                self._plain = self._run(self._items)
            except PtftError:  # its message may name folders of this machine
                self.reason = "the data of the recipe's evaluations is not here"

    def reads(self, tower: str) -> bool:
        """Whether the evaluations depend on a tower, ``image``, ``text`` or ``detect``."""
        if self._recipe is None or self.reason is not None:
            return False
        return bool(self._reading(tower))

    def _reading(self, tower: str) -> list[EvaluateItem]:
        """The evaluations that depend on a tower."""
        if tower == "detect":
            return [item for item in self._items if isinstance(item, DetectEvaluation)]
        # captions, or prompts of classes
        queries = (RetrievalEvaluation, ZeroShotEvaluation, DetectEvaluation)
        return [
            item
            for item in self._items
            if (tower == "text" and isinstance(item, queries))
            or (
                tower in TOWERS_OF[reads_of(item, self._model)]
                and not isinstance(item, DetectEvaluation)
            )
        ]

    def change(
        self, *, image: Path | None = None, text: Path | None = None, detect: Path | None = None
    ) -> Change:
        """Run the evaluations with these files; a tower without one is the model's own.

        Args:
            image, text, detect: of a detector the pictures' file runs what embeds, and the
                detector's what finds.

        Raises:
            ExportError: onnxruntime cannot load a file.
            ModelError: a file gives embeddings that are not finite.
        """
        tower = "detect" if detect is not None else "image" if image is not None else "text"
        found = self._run(self._reading(tower), image, text, detect)
        moved = {
            f"{name} {key}": value - self._plain[name][key]
            for name, figures in found.items()
            for key, value in figures.items()
        }
        lost = max(_headline(self._plain[name]) - _headline(found[name]) for name in found)
        return Change(moved, 100 * lost)

    def _run(
        self,
        items: Sequence[EvaluateItem],
        image: Path | None = None,
        text: Path | None = None,
        detect: Path | None = None,
    ) -> dict[str, dict[str, float]]:
        assert self._recipe is not None
        files = {"image": image, "text": text, "detect": detect}
        results = evaluate(
            _Towers(self._model, files, self._texts.setdefault(text, {})),
            items,
            self._recipe.data,
            seed=self._recipe.seed,
            device="cpu",
            progress=self._count,
            embedded=self._images.setdefault(image, {}),
        )
        return {
            name: {
                key: value
                for key, value in figures.items()
                if key.startswith(_SHARES) and "chance" not in key and isinstance(value, float)
            }
            for name, figures in results.items()
        }


class _Towers(DualEncoder):
    """A model whose towers may be files; texts that ``known`` holds are not embedded again."""

    def __init__(
        self, model: DualEncoder, files: dict[str, Path | None], known: dict[bytes, Tensor]
    ) -> None:
        super().__init__(model.image, model.text, model.spec)
        self.logit_scale, self.logit_bias = model.logit_scale, model.logit_bias
        self.head, self.detector = model.head, model.detector
        self._files = files
        self._sessions: dict[str, Any] = {}
        self._known = known
        self.train(model.training)  # the towers are the model's own, and keep its mode

    def encode_image(self, images: Tensor) -> Tensor:
        if self._files["image"] is None:
            return super().encode_image(images)
        return self._embed("image", images)

    def detect(self, images: Tensor, queries_qd: Tensor) -> PlaceAnswers:
        if self._files["detect"] is None:
            return super().detect(images, queries_qd)
        rows = self._embed("detect", images).numpy()
        logits = torch.from_numpy(place_logits(rows, queries_qd.numpy()))
        return PlaceAnswers(logits, torch.from_numpy(place_boxes(rows)))

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
    """The figure of an item that decides: top-1 accuracy, mAP, or the mean of its recalls."""
    own = [figures[name] for name in _DECIDING if name in figures]
    return own[0] if own else sum(figures.values()) / len(figures)
