"""Which samples are searched for a model's nearest neighbours: of a run, before and after training,
and of an evaluation, by several models.

Samples and queries are drawn by the recipe's seed, so the same ones are asked each time. What a run
found lies with small copies of the pictures in one file of its folder: the first half is written
before the first step, and so outlives any kill.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from ptft.artifact import RunFiles, write_json
from ptft.data import SampleSet, open_split
from ptft.evaluate.embed import evaluating
from ptft.model import DualEncoder
from ptft.objective import needs_pictures
from ptft.recipe import (
    DataSection,
    EvaluateItem,
    Recipe,
    ZeroShotEvaluation,
)
from ptft.recipe.check import Split
from ptft.recipe.data import has_split
from ptft.report.neighbours.record import Answer, Neighbours, read_neighbours
from ptft.report.neighbours.search import NotSearchableError, search_samples

__all__ = ["CPU_FLOP", "find_answers", "record_neighbours"]

Stage = Literal["before", "after"]

_MOST = 256  # candidates
_FEWEST = 12  # below, five of them say nothing
CPU_FLOP = 3e11  # a few seconds of one core at the 50 GFLOP/s that it does
_READ_PIXELS = 2e8  # two to four seconds of decoding
_OF_A_RUN = 500  # or one picture for so many of training, which nobody notices


def record_neighbours(
    folder: Path, recipe: Recipe, model: DualEncoder, stage: Stage, *, total: int
) -> str:
    """Find the nearest neighbours of a few queries, and record them in the run folder.

    No random number is drawn, and the model keeps its mode. Whatever goes wrong, the run goes on.

    Args:
        total: samples of the whole run, which bounds how much this may cost.

    Returns:
        Why nothing is recorded, in words; empty where something is.
    """

    def search() -> list[Answer]:
        section, split, templates = _which(recipe)
        whole = open_split(section, split, seed=recipe.seed)
        count, label = _affordable(model, whole, total), f"{section.kind}, {split}"
        return search_samples(neighbours, model, whole, count, label, templates, recipe.seed)

    try:
        neighbours = Neighbours() if stage == "before" else read_neighbours(folder) or Neighbours()
        if neighbours.reason:
            return ""  # said before
        setattr(neighbours, stage, _answers(neighbours, search))
        write_json(folder / RunFiles.NEIGHBOURS, asdict(neighbours))
        return neighbours.reason
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def find_answers(
    neighbours: Neighbours, recipe: Recipe, item: EvaluateItem, model: DualEncoder
) -> list[Answer]:
    """Find the nearest neighbours of a few queries among the samples that an evaluation reads.

    Each model is asked the same. No random number is drawn, and the model keeps its mode.

    Args:
        neighbours: of all models that are asked: the pictures of this one's answers are added, or
            ``reason`` says why there are none.
        item: of the recipe.

    Returns:
        What each query found; empty where nothing can be asked.
    """

    def search() -> list[Answer]:
        section, templates = item.data or recipe.data, _templates(recipe, item)
        whole = open_split(section, item.split, seed=recipe.seed)
        count, label = min(_MOST, len(whole)), f"{section.kind}, {item.split}"
        return search_samples(neighbours, model, whole, count, label, templates, recipe.seed)

    return [] if neighbours.reason else _answers(neighbours, search)


def _answers(neighbours: Neighbours, search: Callable[[], list[Answer]]) -> list[Answer]:
    """What a search found; nothing, and the reason among the neighbours, where it cannot be."""
    try:
        return search()
    except NotSearchableError as skip:
        neighbours.reason = str(skip)
    except Exception as error:  # a picture for people must not cost a run
        neighbours.reason = f"{type(error).__name__}: {error}"
    return []


def _templates(recipe: Recipe, item: EvaluateItem | None = None) -> list[str]:
    """Prompts for classes: the objective's, else a zero-shot evaluation's own."""
    own = item.templates if isinstance(item, ZeroShotEvaluation) else []
    return getattr(recipe.objective, "templates", None) or own


def _which(recipe: Recipe) -> tuple[DataSection, Split, list[str]]:
    """The evaluated set whose samples are searched, and prompts for its classes."""
    if not needs_pictures(recipe.objective):
        raise NotSearchableError("the objective reads no pictures")
    templates = _templates(recipe)
    wanted = ("classify", "zero_shot") if templates else ("retrieval", "zero_shot")
    for kind in (*wanted, "retrieval", "classify", "probe"):
        for item in recipe.evaluate:
            if item.kind == kind:
                return *_spare_test(item, recipe.data), _templates(recipe, item)
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        if has_split(recipe.data, split):
            return recipe.data, split, templates
    raise NotSearchableError("the recipe evaluates nothing and its data has no val split")


def _spare_test(item: EvaluateItem, own: DataSection) -> tuple[DataSection, Split]:
    """The split that an evaluation reads; in place of test, which is for the end of training,
    another one where there is any."""
    section = item.data or own
    if item.split != "test":
        return section, item.split
    held = next((one for one in (section, own) if has_split(one, "val")), None)
    return (section, "test") if held is None else (held, "val")


def _affordable(model: DualEncoder, samples: SampleSet, total: int) -> int:
    """Count the candidates that cost a few seconds at most, or next to nothing of the run.

    Decided by counting, not by timing, so that a run has the same ones on any day.
    """
    first = [samples[index] for index in range(min(4, len(samples)))]
    shown = [one.decoded(model.spec.preprocess.reading) for one in first]
    pixels = sum(one.width * one.height for one in shown) / max(1, len(first))
    count = int(_READ_PIXELS / max(1.0, pixels))
    if model.device.type == "cpu":
        height, width = model.spec.preprocess.size
        text = next((caption for one in first for caption in one.captions), "a photo of it")
        tokenizer = model.spec.tokenizer
        with evaluating(model), FlopCounterMode(display=False) as counter:
            model.encode_image(torch.zeros(1, 3, height, width))
            model.encode_text(torch.from_numpy(tokenizer.trim(tokenizer([text]))))
        count = min(count, int(CPU_FLOP / max(1, counter.get_total_flops())))
    count = min(max(count, total // _OF_A_RUN), _MOST, len(samples))
    if count < min(_FEWEST, len(samples)):
        raise NotSearchableError(
            f"looking at {_FEWEST} pictures would take too long with this model here"
        )
    return count
