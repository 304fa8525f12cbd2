"""Embeddings of a whole split, batch by batch: what every evaluation starts from.

Shape letters: N samples, M texts, D width of the joint space, W width of what is read: D, or 2D.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.data import SampleSet, eval_batches
from ptft.data.reading.batch import Skipped
from ptft.data.reading.loader import Workers
from ptft.errors import ModelError
from ptft.model import DualEncoder, join_embeddings
from ptft.recipe import Reads
from ptft.speech import ProgressCallback

__all__ = ["SplitEmbeddings", "embed_split", "embed_texts", "evaluating", "pictures_at_once"]

_PIXEL_BYTES = 2**25
"""Of a batch, as float32: 256 pictures of 104 pixels, 55 of 224."""


@dataclass(frozen=True)
class SplitEmbeddings:
    """Embeddings of the samples of a split, with their captions and labels.

    Attributes:
        inputs_nw: float32 (N, W), on the CPU: L2-normalised embeddings of the images, of the texts,
            or both, the image's before the text's.
        indices: int64 (N,), the samples' places in their set.
        captions: the texts of each sample.
        labels: int64 (N,), -1 for none; None where the set has no classes, or several a sample.
        classes: their names.
        has: bool (N, C), which classes each sample has; None where it has one. ``told`` says of
            which samples that is known.
        skipped: the samples that could not be read.
        pictures: of each sample a number that all samples of one picture share, see
            ``SampleSet.picture_of``; empty where that is not known.
    """

    inputs_nw: Tensor
    indices: Tensor
    captions: list[tuple[str, ...]]
    labels: Tensor | None
    classes: list[str] | None
    skipped: Skipped = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    has: Tensor | None = None
    told: Tensor | None = None

    def several(self) -> tuple[Tensor, Tensor] | None:
        """Embeddings of the samples whose classes are told, and which each has, bool (N, C); None
        where samples have one class."""
        if self.has is None or self.told is None:
            return None
        return self.inputs_nw[self.told], self.has[self.told]

    def by_picture(self) -> tuple[Tensor, list[tuple[str, ...]]]:
        """Merge samples that show one picture, such as rows of several classes.

        Returns:
            Inputs (P, W) of P pictures, and for each the captions of all its samples.
        """
        places: dict[int, list[int]] = {}
        for place, picture in enumerate(self.pictures):
            places.setdefault(picture, []).append(place)
        if not places or len(places) == len(self.pictures):
            return self.inputs_nw, self.captions
        firsts = torch.tensor([own[0] for own in places.values()])
        captions = [
            tuple(dict.fromkeys(text for place in own for text in self.captions[place]))
            for own in places.values()
        ]
        return self.inputs_nw[firsts], captions

    def labelled(self) -> tuple[Tensor, Tensor] | None:
        """Select embeddings and labels of the samples that have a label; None without classes."""
        if self.labels is None:
            return None
        kept = self.labels >= 0
        return self.inputs_nw[kept], self.labels[kept]


@torch.no_grad()
def embed_split(
    model: DualEncoder,
    samples: SampleSet,
    *,
    batch: int,
    workers: Workers = "auto",
    what: str = "images",
    progress: ProgressCallback | None = None,
    reads: Reads = "image",
) -> SplitEmbeddings:
    """Embed every sample of a set, where the model's weights are; at most one batch is held.

    Args:
        batch: samples at once.
        workers: processes that read; they change no result.
        what: the name that ``progress`` is called with.
        reads: the image, the text (the first caption), or both; samples without are left out.

    Raises:
        DataError: no sample can be read.
        ModelError: an embedding is not finite.
    """
    images_nd = torch.empty(0, model.spec.embed_dim)
    indices: list[Tensor] = []
    labels: list[Tensor] = []
    captions: list[tuple[str, ...]] = []
    skipped: Skipped = []
    with evaluating(model):
        for part in eval_batches(
            samples, preprocess=model.spec.preprocess, batch=batch, workers=workers, reads=reads
        ):
            indices.append(part.indices)
            first = len(captions)
            captions += part.captions
            skipped += part.skipped
            if part.labels is not None:
                labels.append(part.labels)
            if part.images is not None:
                pixels = model.normalise(part.images.to(model.device))
                row_bd = F.normalize(model.encode_image(pixels), dim=-1).float().cpu()
                _refuse_nan(row_bd, [samples.name(int(index)) for index in part.indices])
                if not len(images_nd):  # room for all at once: joined, they would take it twice
                    images_nd = torch.empty(len(samples), row_bd.shape[1])
                images_nd[first : len(captions)] = row_bd
            if progress is not None:
                progress(what, len(captions) + len(skipped), len(samples))
    images_nd = images_nd[: len(captions)]
    texts_nd = None
    if reads != "image":
        texts = [own[0] for own in captions]
        texts_nd = embed_texts(model, texts, batch=batch, progress=progress)
    found = torch.cat(indices) if indices else torch.empty(0, dtype=torch.int64)
    numbers = torch.cat(labels) if labels else None
    has = told = None
    if numbers is not None and samples.label_sets is not None:
        has, told = torch.from_numpy(samples.label_sets.multi_hot(numbers.numpy())), numbers >= 0
        numbers = None
    return SplitEmbeddings(
        inputs_nw=join_embeddings(images_nd, texts_nd, reads),
        indices=found,
        captions=captions,
        labels=numbers,
        classes=samples.classes,
        skipped=skipped,
        pictures=[samples.picture_of(index) for index in found.tolist()],
        has=has,
        told=told,
    )


@torch.no_grad()
def embed_texts(
    model: DualEncoder,
    texts: Sequence[str],
    *,
    batch: int,
    progress: ProgressCallback | None = None,
) -> Tensor:
    """Embed texts: float32 (M, D), L2-normalised, on the CPU.

    Equal texts are embedded once. They run in order of length, so that trimming a batch to its
    longest text cuts most.

    Raises:
        ModelError: an embedding is not finite.
    """
    unique = sorted(set(texts), key=lambda text: (len(text), text))
    number = {text: place for place, text in enumerate(unique)}
    number_m = torch.tensor([number[text] for text in texts], dtype=torch.int64)
    order_m = number_m.argsort()
    ends = torch.bincount(number_m, minlength=len(unique)).cumsum(0).tolist()
    found_md = torch.empty(0, model.spec.embed_dim)
    tokenizer = model.spec.tokenizer
    with evaluating(model):
        for start in range(0, len(unique), batch):
            part = unique[start : start + batch]
            tokens = torch.from_numpy(tokenizer.trim(tokenizer(part))).to(model.device)
            row_bd = F.normalize(model.encode_text(tokens), dim=-1).float().cpu()
            _refuse_nan(row_bd, part)
            if not start:  # room for all: joined and put in order, they would take it thrice
                found_md = torch.empty(len(texts), row_bd.shape[1])
            own_k = order_m[ends[start - 1] if start else 0 : ends[start + len(part) - 1]]
            found_md[own_k] = row_bd[number_m[own_k] - start]
            if progress is not None:
                progress("texts", start + len(part), len(unique))
    return found_md


def pictures_at_once(model: DualEncoder, most: int = 256) -> int:
    """Pictures of a batch, where their memory counts: so many that their pixels, of which a tower
    makes several times as much, take at most 32 MiB."""
    height, width = model.spec.preprocess.size
    return min(most, max(1, _PIXEL_BYTES // (height * width * 3 * 4)))


@contextmanager
def evaluating(model: DualEncoder) -> Iterator[None]:
    """Put the model into eval mode, and back into its own mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _refuse_nan(rows: Tensor, names: Sequence[str]) -> None:
    finite = torch.isfinite(rows).all(dim=1)
    if not bool(finite.all()):
        first = names[int((~finite).nonzero()[0])]
        raise ModelError(f"{first!r}: its embedding is not finite; the weights have diverged")
