"""Finds nearest neighbours of a few queries over held-out samples.

Shape letters: N candidate pictures, M texts, D width of the joint space.

Texts look for pictures, pictures for texts, and pictures for pictures, among a few hundred samples.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ptft.data import SampleSet
from ptft.data.hashing import hash_integers, permutation
from ptft.data.sample import Subset
from ptft.evaluate import SplitEmbeddings, embed_split, embed_texts
from ptft.model import DualEncoder, class_head
from ptft.report.neighbours.record import Answer, NearestFound, NeighbourPicture, Neighbours

__all__ = ["NotSearchableError", "search_samples"]

_QUERIES = 4  # of each kind
_PICTURES, _TEXTS = 5, 3  # shown of what a query found
_SIDE = 112  # of a picture on the page, in pixels
_BATCH = 32
_SEED = 0x6E6E  # "nn": keeps these draws apart from the others of the same seed


class NotSearchableError(Exception):
    """No neighbours can be found, and why."""


@torch.no_grad()
def search_samples(
    neighbours: Neighbours,
    model: DualEncoder,
    whole: SampleSet,
    count: int,
    label: str,
    templates: Sequence[str],
    seed: int,
) -> list[Answer]:
    """Ask a model a few queries over some samples of a set.

    Args:
        neighbours: told what was searched; the pictures of the answers are added.
        count: candidates, drawn by the seed.
        label: what the set is, in words.
        templates: prompts for classes, where there are no captions.
        seed: of the recipe.

    Raises:
        NotSearchableError: there are fewer than two candidates.
    """
    if count < 2:
        raise NotSearchableError(f"{len(whole)} samples are too few to search")
    samples = _Part(whole, count) if _in_order(whole) else Subset(whole, count, seed)
    found = embed_split(model, samples, batch=_BATCH, workers=0)
    texts = _texts(model, found, templates)
    neighbours.source = f"{label}: {len(found.indices):,} of {len(whole):,} pictures"
    neighbours.texts = texts.kind
    same = _same(found, texts)
    neighbours.right = "" if same is None else same[0]
    answers = _answers(found, texts, None if same is None else same[1], seed)
    keys = {answer.picture for answer in answers} | {
        one.picture for answer in answers for one in answer.found
    }
    place = {int(index): row for row, index in enumerate(found.indices)}
    for key in sorted(key for key in keys - {None} if key is not None):
        if key not in neighbours.pictures:
            sample = samples[int(key)]
            says = texts.of(place[int(key)]) or _class_of(found, place[int(key)])
            shown = sample.decoded(model.spec.preprocess.reading)  # what the model was shown
            neighbours.pictures[key] = NeighbourPicture(sample.name, says, _data_uri(shown))
    return answers


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
        nearest = [NearestFound(right[place], picture=keys[place]) for place in places]
        name = texts.names[text]
        answers.append(Answer("text_to_picture", nearest, rank, len(keys), text=name))
    # other pictures than those that the texts above belong to, as far as there are any
    rows = [row for row in labelled if texts.right_n[row] not in asked] or labelled
    for row in rows[:_QUERIES]:
        right = [text == texts.right_n[row] for text in range(len(texts.names))]
        places, rank = _nearest(texts.scores_nm[row], right, _TEXTS)
        nearest = [NearestFound(right[place], text=texts.names[place]) for place in places]
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
            NearestFound(right[place] if alike else None, picture=keys[others[place]])
            for place in places
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
