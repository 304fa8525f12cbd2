"""What an exported file costs in recall, accuracy or mAP, on the evaluations of the recipe; and
whether a model may be asked by texts, by what was measured of them.

``classify`` on pictures teaches the image tower and a head, and no text. Where the two towers never
learned together before, the export holds a text tower of random weights, whose embeddings say
nothing of a picture; where they did, tuning may have moved the pictures away from their texts. So
the class names are put to the test on the pictures that the head is measured on (the figure
``zero_shot_top1`` of a ``classify`` evaluation). Pictures alone (``self_supervised``) teach no text
either: a model without a head that learned from nothing else is asked by none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from ptft.artifact import ModelInfo
from ptft.errors import ExportError, PtftError
from ptft.evaluate import evaluate
from ptft.evaluate.ranks import scores_within
from ptft.evaluate.run import EmbeddedSplits, reads_of
from ptft.model import DualEncoder
from ptft.model.detector import PlaceAnswers
from ptft.model.spec import ModelSpec
from ptft.onnx.boxes import place_boxes, place_logits
from ptft.recipe import (
    TOWERS_OF,
    DetectEvaluation,
    EvaluateItem,
    ObjectiveSection,
    ProbeEvaluation,
    Recipe,
    RetrievalEvaluation,
    SelfSupervisedObjective,
    ZeroShotEvaluation,
    check_evaluations,
)
from ptft.speech import ProgressCallback

__all__ = [
    "LEAST",
    "Change",
    "Quality",
    "Texts",
    "judge_texts",
    "offers_texts",
]

LEAST = 0.25
"""Of what the head gains over guessing, the share that class names must gain: a quarter. In between
lie zero-shot figures of pretrained models in hard domains, which are of use."""

_MOVED = (
    "its image tower went on learning from pictures alone, which moves them away from their texts; "
    "what texts still find is only what an evaluation below says"
)
_NEVER = "its towers never learned together, only its classifier did"

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
        with scores_within(self._recipe.run.evaluate_mb):
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


@dataclass(frozen=True)
class Texts:
    """Whether texts may be held against the model's pictures.

    Attributes:
        offered: ``yes``; ``warned``: where class names hardly find its pictures, or its towers
            never learned together and they do, as what its head began with, or its image tower
            went on alone; ``refused``: where they do not, and its towers never learned together.
        reason: in words; empty with ``yes``.
        figures: what was measured, shares of 1: ``zero_shot_top1``, ``top1``, ``chance``.
    """

    offered: Literal["yes", "warned", "refused"] = "yes"
    reason: str = ""
    figures: dict[str, float] | None = None


def judge_texts(
    spec: ModelSpec,
    task: str,
    evaluation: dict[str, dict[str, Any]],
    objective: ObjectiveSection | None = None,
) -> Texts:
    """Say whether a classifier of pictures, or a model that learned from pictures alone, may be
    asked by texts; any other may.

    Args:
        task: see ``ModelInfo``.
        evaluation: figures by the names of evaluations, of which the first of the head counts.
        objective: that it last learned by, where that is known.
    """
    if task == "embed" and spec.aligned is False:
        return Texts("refused", "its towers never learned together")
    if task == "embed" and isinstance(objective, SelfSupervisedObjective):
        return Texts("warned", _MOVED)
    if task != "classify" or spec.reads != "image":
        return Texts()
    figures = next((one for one in evaluation.values() if "zero_shot_top1" in one), None)
    if figures is None:
        if spec.aligned is not False:
            return Texts()
        return Texts("refused", f"{_NEVER}, and no evaluation measured what texts find")
    texts, head, chance = (figures[key] for key in ("zero_shot_top1", "top1", "chance"))
    kept = {"zero_shot_top1": texts, "top1": head, "chance": chance}
    enough = texts - chance >= LEAST * max(0.0, head - chance) and texts > chance
    if enough and spec.aligned is not False:
        return Texts(figures=kept)
    said = (
        f"class names as texts find {texts:.1%} of the pictures' classes, where its head finds "
        f"{head:.1%} and guessing {chance:.1%}"
    )
    if spec.aligned is False:
        return Texts("warned" if enough else "refused", f"{said}; {_NEVER}", kept)
    return Texts("warned", said, kept)


def offers_texts(info: ModelInfo, spec: ModelSpec) -> bool:
    """Whether a card speaks of texts at all: not where the towers never learned together."""
    return info.texts == "yes" or (info.texts == "warned" and spec.aligned is not False)


def _headline(figures: dict[str, float]) -> float:
    """The figure of an item that decides: top-1 accuracy, mAP, or the mean of its recalls."""
    own = [figures[name] for name in _DECIDING if name in figures]
    return own[0] if own else sum(figures.values()) / len(figures)
