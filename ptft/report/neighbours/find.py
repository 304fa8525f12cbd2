"""Finds nearest neighbours before and after training, for a few queries over held-out samples.

Shape letters: N candidate pictures, M texts, D width of the joint space.

Texts look for pictures, pictures for texts, and pictures for pictures, among a few hundred samples
of the set that the recipe evaluates. Samples and queries are drawn by the recipe's seed, so the
same ones are asked before and after. What was found lies with small copies of the pictures in one
file of the run folder: the first half is written before the first step, and so outlives any kill.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ptft.artifact import RunFiles, write_json
from ptft.data import SampleSet, open_split
from ptft.data.hashing import hash_integers, permutation
from ptft.data.sample import Subset
from ptft.evaluate import SplitEmbeddings, embed_split, embed_texts
from ptft.evaluate.embed import evaluating
from ptft.model import DualEncoder, class_head
from ptft.objective import needs_pictures
from ptft.recipe import (
    DataSection,
    EvaluateItem,
    Recipe,
    ZeroShotEvaluation,
)
from ptft.recipe.data import has_split
from ptft.report.neighbours.record import Answer, Found, Neighbours, Picture, read_neighbours

__all__ = ["CPU_FLOP", "record_neighbours"]

Stage = Literal["before", "after"]

_MOST = 256  # candidates
_FEWEST = 12  # below, five of them say nothing
_QUERIES = 4  # of each kind
_PICTURES, _TEXTS = 5, 3  # shown of what a query found
_SIDE = 112  # of a picture on the page, in pixels
_BATCH = 32
CPU_FLOP = 3e11  # a few seconds of one core at the 50 GFLOP/s that it does
_READ_PIXELS = 2e8  # two to four seconds of decoding
_OF_A_RUN = 500  # or one picture for so many of training, which nobody notices
_SEED = 0x6E6E  # "nn": keeps these draws apart from the others of the same seed


class _NotMeasurableError(Exception):
    """No neighbours can be found, and why."""


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
    try:
        neighbours = Neighbours() if stage == "before" else read_neighbours(folder) or Neighbours()
        if neighbours.reason:
            return ""  # said before
        try:
            _fill(neighbours, recipe, model, stage, total)
        except _NotMeasurableError as skip:
            neighbours.reason = str(skip)
        except Exception as error:  # a picture for people must not cost a run
            neighbours.reason = f"{type(error).__name__}: {error}"
        write_json(folder / RunFiles.NEIGHBOURS, asdict(neighbours))
        return neighbours.reason
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@torch.no_grad()
def _fill(
    neighbours: Neighbours, recipe: Recipe, model: DualEncoder, stage: Stage, total: int
) -> None:
    section, split, templates = _which(recipe)
    whole = open_split(section, split, seed=recipe.seed)
    count = _affordable(model, whole, total)
    samples = _Part(whole, count) if _in_order(whole) else Subset(whole, count, recipe.seed)
    found = embed_split(model, samples, batch=_BATCH, workers=0)
    texts = _texts(model, found, templates)
    neighbours.source = (
        f"{section.kind}, {split}: {len(found.indices):,} of {len(whole):,} pictures"
    )
    neighbours.texts = texts.kind
    same = _same(found, texts)
    neighbours.right = "" if same is None else same[0]
    answers = _answers(found, texts, None if same is None else same[1], recipe.seed)
    setattr(neighbours, stage, answers)
    keys = {answer.picture for answer in answers} | {
        one.picture for answer in answers for one in answer.found
    }
    place = {int(index): row for row, index in enumerate(found.indices)}
    for key in sorted(key for key in keys - {None} if key is not None):
        if key not in neighbours.pictures:
            sample = samples[int(key)]
            says = texts.of(place[int(key)]) or _class_of(found, place[int(key)])
            shown = sample.decoded(model.spec.preprocess.reading)  # what the model was shown
            neighbours.pictures[key] = Picture(sample.name, says, _data_uri(shown))


def _which(recipe: Recipe) -> tuple[DataSection, Literal["train", "val", "test"], list[str]]:
    """The evaluated set whose samples are searched, and prompts for its classes."""
    if not needs_pictures(recipe.objective):
        raise _NotMeasurableError("the objective reads no pictures")
    templates = recipe.objective.templates or []
    wanted = ("classify", "zero_shot") if templates else ("retrieval", "zero_shot")
    for kind in (*wanted, "retrieval", "classify", "probe"):
        for item in recipe.evaluate:
            if item.kind == kind:
                if isinstance(item, ZeroShotEvaluation):
                    templates = templates or item.templates
                section, split = _spare_test(item, recipe.data)
                return section, split, templates
    splits: tuple[Literal["val", "test"], ...] = ("val", "test")
    for split in splits:
        if has_split(recipe.data, split):
            return recipe.data, split, templates
    raise _NotMeasurableError("the recipe evaluates nothing and its data has no val split")


def _spare_test(
    item: EvaluateItem, own: DataSection
) -> tuple[DataSection, Literal["train", "val", "test"]]:
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
        raise _NotMeasurableError(
            f"looking at {_FEWEST} pictures would take too long with this model here"
        )
    if count < 2:
        raise _NotMeasurableError(f"{len(samples)} samples are too few to search")
    return count


class _Part(SampleSet):
    """The first samples of a set that can only be read well in its order."""

    def __init__(self, samples: SampleSet, count: int) -> None:
        self.samples, self.count, self.classes = samples, count, samples.classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.samples.captions(index)


def _in_order(samples: SampleSet) -> bool:
    return samples.window is not None and samples.blocks is None


@dataclass(frozen=True)
class _Texts:
    """Texts to search and to search with.

    Attributes:
        kind: ``captions``, ``classes``, or empty where there are none.
        names: the M texts.
        scores_nm: of each picture with each text.
        right_n: the text that is right for a picture, -1 for none.
    """

    kind: str
    names: list[str]
    scores_nm: Tensor
    right_n: list[int]

    def of(self, row: int) -> str:
        return self.names[self.right_n[row]] if self.right_n[row] >= 0 else ""


def _texts(model: DualEncoder, found: SplitEmbeddings, templates: Sequence[str]) -> _Texts:
    """The model's own classes where it has a head for pictures, else captions, else classes by
    prompts."""
    images_nd = found.inputs_nw
    labels = [_class_of(found, row) for row in range(len(images_nd))]
    if model.head is not None and model.spec.reads == "image":
        names = list(model.spec.classes)
        logits_nc = model.class_logits(images_nd.to(model.device)).cpu()
        return _Texts("classes", names, logits_nc, _places(labels, names))
    captions = [own[0] if own else "" for own in found.captions]
    if any(captions):
        names = sorted(set(captions) - {""})
        scores_nm = images_nd @ embed_texts(model, names, batch=_BATCH).T
        return _Texts("captions", names, scores_nm, _places(captions, names))
    names = sorted(set(labels) - {""})
    if names and templates:
        rows_md = class_head(model, names, templates).cpu()
        return _Texts("classes", names, images_nd @ rows_md.T, _places(labels, names))
    return _Texts("", [], torch.empty(len(images_nd), 0), [-1] * len(images_nd))


def _places(values: Sequence[str], names: Sequence[str]) -> list[int]:
    place = {name: index for index, name in enumerate(names)}
    return [place.get(value, -1) for value in values]


def _class_of(found: SplitEmbeddings, row: int) -> str:
    if found.labels is None or found.classes is None or int(found.labels[row]) < 0:
        return ""
    return found.classes[int(found.labels[row])]


def _same(found: SplitEmbeddings, texts: _Texts) -> tuple[str, list[int]] | None:
    """What pictures can have in common (in words), and its number for each picture."""
    if found.labels is not None and bool((found.labels >= 0).any()):
        return "same class", found.labels.tolist()
    shared = [right for right in texts.right_n if right >= 0]
    return ("same caption", texts.right_n) if len(set(shared)) < len(shared) else None


def _answers(
    found: SplitEmbeddings, texts: _Texts, same_n: Sequence[int] | None, seed: int
) -> list[Answer]:
    keys = [str(int(index)) for index in found.indices]
    order = permutation(hash_integers(seed, _SEED), len(keys)).tolist()
    labelled = [row for row in order if texts.right_n[row] >= 0]
    asked = list(dict.fromkeys(texts.right_n[row] for row in labelled))[:_QUERIES]
    answers: list[Answer] = []
    for text in asked:
        right = [one == text for one in texts.right_n]
        places, rank = _nearest(texts.scores_nm[:, text], right, _PICTURES)
        nearest = [Found(right[place], picture=keys[place]) for place in places]
        name = texts.names[text]
        answers.append(Answer("text_to_picture", nearest, rank, len(keys), text=name))
    # other pictures than those that the texts above belong to, as far as there are any
    rows = [row for row in labelled if texts.right_n[row] not in asked] or labelled
    for row in rows[:_QUERIES]:
        right = [text == texts.right_n[row] for text in range(len(texts.names))]
        places, rank = _nearest(texts.scores_nm[row], right, _TEXTS)
        nearest = [Found(right[place], text=texts.names[place]) for place in places]
        answers.append(
            Answer("picture_to_text", nearest, rank, len(texts.names), picture=keys[row])
        )
    scores_nn = found.inputs_nw @ found.inputs_nw.T
    for row in (rows or order)[:_QUERIES]:
        others = [other for other in range(len(keys)) if other != row]
        alike = same_n is not None and same_n[row] >= 0
        right = [alike and same_n is not None and same_n[other] == same_n[row] for other in others]
        places, rank = _nearest(scores_nn[row, torch.tensor(others)], right, _PICTURES)
        nearest = [
            Found(right[place] if alike else None, picture=keys[others[place]]) for place in places
        ]
        answers.append(Answer("picture_to_picture", nearest, rank, len(others), picture=keys[row]))
    return answers


def _nearest(scores: Tensor, right: Sequence[bool], count: int) -> tuple[list[int], int | None]:
    """Places of the best, ties in their order, and the rank of the first right one from 1."""
    order = torch.sort(scores.float(), descending=True, stable=True).indices.numpy()
    hits = np.flatnonzero(np.asarray(right)[order])
    return order[:count].tolist(), int(hits[0]) + 1 if len(hits) else None


def _data_uri(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
