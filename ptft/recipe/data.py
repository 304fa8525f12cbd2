"""The data section: where samples come from, and which of their fields mean what.

Every kind has the splits ``train``, ``val`` and ``test``. What is selected on is ``val``;
``test`` is read only where an evaluation names it.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ptft.recipe.fields import Fields
from ptft.recipe.section import LONGEST_NAME, Section

__all__ = [
    "ADDED",
    "INDIFFERENT",
    "BoxesData",
    "DataSection",
    "FolderData",
    "MixtureData",
    "MixturePart",
    "PartData",
    "ScenesData",
    "ShardsData",
    "TableData",
    "has_many_labels",
    "has_pictures",
    "has_split",
    "without_captions",
]

INDIFFERENT = frozenset({"cache", "cache_gb", "max_skipped"})
"""Keys of a data section that change no weight, so that a run may go on with another value."""

ADDED = {
    **{"join": "auto", "picture_id": None, "boxes": None, "box_format": "auto"},
    **{"labels": "one", "label_separator": None, "group": None},
}
"""Keys that came later, with what was done before there was a choice; left out of digests so."""

Paths = str | list[str]
"""A path, a glob or a brace pattern (``shard-{0000..0099}.tar``), or a list of them."""


class Drawn(Section):
    """How much of the training set is used."""

    limit: int | None = Field(default=None, ge=1)
    """Use only this many training samples, drawn by the recipe's seed; a smaller number is a part
    of a larger one."""

    shots: int | None = Field(default=None, ge=1)
    """Use only this many training samples of each class, drawn likewise."""

    draw_seed: int | None = Field(default=None, ge=0)
    """Seed of that draw; absent: the recipe's. With it runs of several seeds learn from the same
    samples, each in its own order."""

    unlabelled: "PartData | None" = None
    """Pictures without labels, a section of their own: its ``train``, of which neither labels nor
    captions are read. ``self_train`` learns from them, and two arms of a comparison do."""

    @field_validator("unlabelled")
    @classmethod
    def _is_plain(cls, given: "PartData | None") -> "PartData | None":
        if given is not None and (given.unlabelled is not None or given.train is None):
            raise ValueError("allowed: a data section with train, and no unlabelled of its own")
        if given is not None and getattr(given, "image", "") is None:
            raise ValueError("image: null, and pictures are read; allowed: their column")
        return given


class ScenesData(Drawn):
    """Images of coloured shapes with compositional captions, drawn from a seed.

    A share of the combinations is never drawn for ``train``; ``val`` and ``test`` hold only those.
    """

    kind: Literal["scenes"] = "scenes"
    style: Literal["shaded", "line"] = "shaded"
    """The domain: lit and textured, or thin line drawings."""
    size: int = Field(default=64, ge=32, le=512)
    """Side of an image in pixels."""
    train: int = Field(default=16384, ge=1)
    """Number of training scenes."""
    val: int = Field(default=256, ge=1)
    """Number of held-out scenes to select on; their captions all differ."""
    test: int = Field(default=256, ge=1)
    """Number of held-out scenes to report on; their captions all differ, also from ``val``'s."""
    held_out: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the combinations that training never shows."""
    seed: int = Field(default=0, ge=0)
    """Of the drawing; apart from the recipe's seed, so that runs share their data."""
    labels: Literal["one", "many"] = "one"
    """The classes of a scene: the shape of its first thing; or ``many``, the colours and the shapes
    of both."""

    @model_validator(mode="after")
    def _several(self) -> "ScenesData":
        if self.labels == "many" and self.shots is not None:
            raise ValueError(f"shots: {self.shots} with labels: many; allowed: null, or limit")
        return self


class ShardsData(Fields, Drawn):
    """WebDataset tars: ``key.jpg`` beside ``key.txt`` and/or ``key.cls`` and/or ``key.json``.

    The fields of a sample are its extensions and the keys of its JSON.

    A path may be an address (``s3://bucket/train-{0000..0099}.tar``, ``gs://``, ``hf://``,
    ``file://`` of a mounted disk), globs and braces included; http is refused. Such a shard is
    fetched whole when one of its samples is first needed, and kept in ``cache``. What it holds is
    read from the index beside it (``shard.tar.index``: ``ptft data index``); without one it is
    fetched once at the start.
    """

    kind: Literal["shards"] = "shards"
    train: Paths | None = None
    """The tars to learn from."""
    val: Paths | None = None
    """The tars to select on."""
    test: Paths | None = None
    """The tars to report on."""
    cache: str | None = None
    """The folder of fetched shards, for any number of processes and runs. Absent:
    ``ptft/shards`` in the platform's cache folder."""
    cache_gb: float = Field(default=32.0, gt=0.0)
    """Size of that folder in 10^9 bytes; beyond it the shards go that were opened longest ago."""
    shuffle_shards: int = Field(default=8, ge=1)
    """Fetched shards are shuffled as wholes, then the samples of so many of them together. Local
    ones are shuffled freely."""


class FolderData(Fields, Drawn):
    """ImageFolder layout (``split/class/picture.jpg``), or pictures with a metadata table.

    A ``metadata.csv``, ``metadata.jsonl`` or ``metadata.parquet`` in the folder names one picture a
    row in its ``file_name`` column; its other columns are the sample's fields, and rows of one
    picture are one sample. Hidden files and folders are never pictures or classes; links are
    followed in class folders.
    """

    kind: Literal["folder"] = "folder"
    train: str | None = None
    """The folder to learn from."""
    val: str | None = None
    """The folder to select on."""
    test: str | None = None
    """The folder to report on."""
    captions: list[str] = Field(default=["{text}"], min_length=1)
    """Templates over the columns, one caption each, as of ``shards``."""


class TableData(Fields, Drawn):
    """Rows of parquet files or of a Hugging Face dataset; a column holds the picture.

    A split is a parquet path, glob or list, or ``org/name:split`` of a dataset on the Hub (or a
    folder saved by ``datasets``). The picture column holds encoded bytes, or ``{"bytes", "path"}``.
    Texts without pictures (``image: null``) may also lie in ``.csv`` or ``.jsonl`` files; a cell of
    a CSV that holds a list of texts, as JSON or Python writes one, is that list.
    """

    kind: Literal["table"] = "table"
    train: Paths | None = None
    """The rows to learn from."""
    val: Paths | None = None
    """The rows to select on."""
    test: Paths | None = None
    """The rows to report on."""
    image: str | None = "image"
    """The column of the picture; null: there is none, for an objective that reads text alone."""
    captions: list[str] = Field(default=["{text}"], min_length=1)
    """Templates over the columns, one caption each, as of ``shards``."""
    revision: str | None = None
    """Of the dataset on the Hub: a commit or a tag."""
    streaming: bool = False
    """Read in order without downloading first, shuffled inside windows of ``window`` rows."""
    window: int = Field(default=4096, ge=1)
    """Rows that are shuffled together when streaming."""


class BoxesData(Section):
    """Pictures with boxes, as annotation tools write them: Pascal VOC, COCO (LVIS too), YOLO.

    A split is COCO's JSON; a folder of VOC's XML files, or a list of their names
    (``ImageSets/Main/train.txt``); YOLO's ``data.yaml``, a folder with ``images`` and ``labels``,
    or a list of pictures. Boxes are in the upright picture, and turn along where the annotation is
    of the stored one.
    """

    kind: Literal["boxes"] = "boxes"
    train: str | None = None
    """The annotations to learn from."""
    val: str | None = None
    """The annotations to select on."""
    test: str | None = None
    """The annotations to report on."""
    format: Literal["auto", "coco", "voc", "yolo"] = "auto"
    """Of the annotations; ``auto``: by what they look like."""
    images: str | None = None
    """The folder of the pictures, and that YOLO's paths count from; absent: where the format keeps
    them. Nothing outside it is read."""
    classes: str | list[str] | None = None
    """Class names in the order of their numbers, as of the other kinds. Absent: those that the
    files list, or those that occur in ``train``, sorted."""
    voc_origin: Literal[0, 1] = 0
    """Number of the first pixel in VOC's files: 0, as tools write today; 1, as in VOC's own."""
    limit: int | None = Field(default=None, ge=1)
    """As of the other kinds."""
    max_pixels: int = Field(default=64_000_000, ge=1)
    """As of the other kinds."""
    max_skipped: float = Field(default=0.01, ge=0.0, le=1.0)
    """As of the other kinds."""


PartData = Annotated[ScenesData | ShardsData | FolderData | TableData, Field(discriminator="kind")]


for _kind in (ScenesData, ShardsData, FolderData, TableData):
    _kind.model_rebuild()  # of unlabelled


class MixturePart(Section):
    """One of the sets of a mixture."""

    data: PartData
    weight: float = Field(default=1.0, gt=0.0)
    """Of its draws beside the other parts'; any scale. Shares are exact to 1 in 4,096."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$", max_length=LONGEST_NAME)
    """Before the names of its samples, in reports."""
    templates: list[Annotated[str, Field(pattern=r"\{\}")]] | None = Field(
        default=None, min_length=1
    )
    """Its captions are its class names in these (``{}``), so that it mixes with sets of others."""


class MixtureData(Section):
    """Several sets in one run, drawn from by weights.

    An epoch is as many draws as the parts have samples together; a part with more than its share
    by size is then seen more than once, one with less not whole. ``val`` and ``test`` are those of
    all the parts that have the split, one after another; weights do not matter there. Parts that
    have classes have the same ones.
    """

    kind: Literal["mixture"] = "mixture"
    parts: list[MixturePart] = Field(min_length=1)
    max_skipped: float = Field(default=0.01, ge=0.0, le=1.0)
    """As of the other kinds, over all parts together; the parts' own are left at the default."""

    @model_validator(mode="after")
    def _one_limit(self) -> "MixtureData":
        names = [part.name for part in self.parts if part.name]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"parts: two are named {twice[0]!r}; allowed: different names")
        for number, part in enumerate(self.parts):
            given = getattr(part.data, "max_skipped", None)
            if given not in (None, Fields.model_fields["max_skipped"].default):
                raise ValueError(
                    f"parts.{number}.data.max_skipped: {given}: set it on the mixture, which is "
                    "judged as a whole"
                )
        return self


DataSection = Annotated[
    ScenesData | ShardsData | FolderData | TableData | BoxesData | MixtureData,
    Field(discriminator="kind"),
]


def has_split(section: DataSection, split: str) -> bool:
    """Whether a data section has a split, of its own or held out of its training set."""
    if isinstance(section, MixtureData):
        return any(has_split(part.data, split) for part in section.parts)
    held_out = split == "val" and getattr(section, "hold_out", None) is not None
    return held_out or getattr(section, split) is not None


def has_pictures(section: DataSection) -> bool:
    """Whether the samples of a data section are said to have pictures."""
    if isinstance(section, MixtureData):
        return all(has_pictures(part.data) for part in section.parts)
    return not isinstance(section, TableData) or section.image is not None


def has_many_labels(section: DataSection) -> bool:
    """Whether a sample of a data section may have several classes."""
    if isinstance(section, MixtureData):
        return any(has_many_labels(part.data) for part in section.parts)
    return getattr(section, "labels", "one") == "many"


def without_captions(section: DataSection) -> DataSection:
    """The same set for whoever reads its pictures alone, which need no caption then."""
    if isinstance(section, MixtureData):
        parts = [
            part.model_copy(update={"data": without_captions(part.data)}) for part in section.parts
        ]
        return section.model_copy(update={"parts": parts})
    return section.model_copy(update={"captions": []}) if isinstance(section, Fields) else section
