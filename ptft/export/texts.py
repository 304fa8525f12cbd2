"""Whether an exported model may be asked by texts, by what was measured of them.

``classify`` on pictures teaches the image tower and a head, and no text. Where the two towers never
learned together before, the export holds a text tower of random weights, whose embeddings say
nothing of a picture; where they did, tuning may have moved the pictures away from their texts. So
the class names are put to the test on the pictures that the head is measured on (the figure
``zero_shot_top1`` of a ``classify`` evaluation). Pictures alone (``self_supervised``) teach no text
either: a model without a head that learned from nothing else is asked by none.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ptft.artifact import ModelInfo
from ptft.model.spec import ModelSpec
from ptft.recipe import ObjectiveSection, SelfSupervisedObjective

__all__ = ["LEAST", "Texts", "judge_texts", "offers_texts"]

LEAST = 0.25
"""Of what the head gains over guessing, the share that class names must gain: a quarter. In between
lie zero-shot figures of pretrained models in hard domains, which are of use."""


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


_MOVED = (
    "its image tower went on learning from pictures alone, which moves them away from their texts; "
    "what texts still find is only what an evaluation below says"
)
_NEVER = "its towers never learned together, only its classifier did"
