"""The data section: where samples come from, and which of their fields mean what.

Every kind has the splits ``train``, ``val`` and ``test``. What is selected on is ``val``;
``test`` is read only where an evaluation names it.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ptft.recipe.section import Section

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
]

INDIFFERENT = frozenset({"cache", "cache_gb", "max_skipped"})
"""Keys of a data section that change no weight, so that a run may go on with another value."""

ADDED = {"join": "auto", "picture_id": None, "boxes": None, "box_format": "auto"}
"""Keys that came later, with what was done before there was a choice; left out of digests so."""

Paths = str | list[str]
"""A path, a glob or a brace pattern (``shard-{0000..0099}.tar``), or a list of them."""


class _Drawn(Section):
    """How much of the training set is used."""

    limit: int | None = Field(default=None, ge=1)
    """Use only this many training samples, drawn by the recipe's seed; a smaller number is a part
    of a larger one."""

    shots: int | None = Field(default=None, ge=1)
    """Use only this many training samples of each class, drawn likewise."""

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


class _Fields(_Drawn):
    """How the fields of a sample become captions and a label."""

    captions: list[str] = Field(default=["{txt}"], min_length=1)
    """Templates over a sample's fields, one caption each (``"{name}, {keywords}"``). A field that
    is a list gives one caption an entry when it stands alone, else it is joined by commas. Training
    draws one of a sample's captions each time it is seen."""

    label: str | None = None
    """The field that holds the class: a name, or a whole number that is a place in the names which
    the source itself gives (``ClassLabel``) or ``classes`` lists; where nobody gives names, the
    number is the name. Absent: ``cls`` where shards have it, the folder's name for ``folder``."""

    classes: str | list[str] | None = None
    """Class names in the order of their numbers: a list, a text file with one a line, or a JSON
    file (a list of names, or of objects with ``text`` or ``name``). Absent: the distinct labels,
    sorted."""

    boxes: str | None = None
    """The field that says what is marked in a picture, as detection sets of Hugging Face have it in
    ``objects``: ``{"bbox": [...], "category": [...]}`` or a list of such, ``iscrowd`` and
    ``difficult`` beside them. Then ``classes`` names what boxes mark; absent: the names of the
    source, or those that occur."""

    box_format: Literal["auto", "xywh", "xyxy", "cxcywh"] = "auto"
    """The four numbers of a box: corner and size, two corners, centre and size; in pixels, or in
    shares of the picture where none is above 1. ``auto``: what all of them fit alone, or an
    error."""

    resample: Literal["none", "uniform", "class"] = "none"
    """How training draws. ``none``: every sample once an epoch; ``uniform``: with replacement;
    ``class``: every class equally often, its samples in turn (those without a label never). An
    epoch is as many draws as there are samples."""

    join: Literal["auto", "bytes", "none"] = "auto"
    """Whether rows of one picture (a row for each of its captions) are one sample. ``auto``: rows
    that name one file, and rows of equal picture bytes where the pictures of the set are 1 GiB or
    less together (or their digests stand in the shards' index); ``bytes``: of whatever size;
    ``none``: every row is a picture of its own. Rows with a class (``label``) are joined by
    ``bytes`` or ``picture_id`` alone, and never to those of another class; but no ``hold_out``
    parts rows of one picture, and no batch or retrieval takes them for different ones."""

    picture_id: str | None = None
    """The field that says which picture a row shows (``image_id``), in place of file and bytes."""

    hold_out: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Where there is no ``val``: it is this share of ``train``, which no run learns from; of each
    class alike, and the same for every seed. What has one picture is on one side."""

    max_pixels: int = Field(default=64_000_000, ge=1)
    """A picture of more pixels is refused before it is decoded, and counted as oversized."""

    max_skipped: float = Field(default=0.01, ge=0.0, le=1.0)
    """Largest share of the samples seen that may be skipped for a fault; beyond it the run stops.
    Judged once 1,000 samples were seen, or the whole set where it is smaller. One bad sample alone
    never stops a run; nor, in a set of which this share is ten samples or more, do ten different
    ones. 0: the first one does. Labels that are no class are held to the same share of the set
    when it is opened."""

    @model_validator(mode="after")
    def _one_val(self) -> "_Fields":
        if self.picture_id is not None and self.join != "auto":
            raise ValueError(
                f"picture_id: {self.picture_id!r} beside join: {self.join}; allowed: one of them"
            )
        if self.boxes is not None and self.label is not None:
            raise ValueError(
                f"boxes: {self.boxes!r} beside label: {self.label!r}; allowed: one of them, since "
                "classes names the classes of either"
            )
        if self.boxes is None and self.box_format != "auto":
            raise ValueError(f"box_format: {self.box_format!r} without boxes; allowed: auto")
        if self.boxes is not None and getattr(self, "streaming", False):
            raise ValueError(
                f"boxes: {self.boxes!r} with streaming: true: what is marked is read before "
                "training; allowed: streaming: false"
            )
        if self.hold_out is not None and getattr(self, "val", None) is not None:
            raise ValueError(f"hold_out: {self.hold_out} beside val; allowed: one of them")
        return self

    @field_validator("captions")
    @classmethod
    def _plain_fields(cls, templates: list[str]) -> list[str]:
        from string import Formatter

        for template in templates:
            try:
                parts = list(Formatter().parse(template))
            except ValueError as error:
                raise ValueError(f"caption template {template!r}: {error}") from None
            for _, name, spec, conversion in parts:
                plain = name is None or (name.strip() and not set(name) & set("[]{}"))
                if not plain or spec or conversion:
                    raise ValueError(
                        f"caption template {template!r}: a field is a column's name in braces, "
                        f"not {{{name}}}"
                    )
        return templates


class ScenesData(_Drawn):
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


class ShardsData(_Fields):
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


class FolderData(_Fields):
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


class TableData(_Fields):
    """Rows of parquet files or of a Hugging Face dataset; a column holds the picture.

    A split is a parquet path, glob or list, or ``org/name:split`` of a dataset on the Hub (or a
    folder saved by ``datasets``). The picture column holds encoded bytes, or ``{"bytes", "path"}``.
    Texts without pictures (``image: null``) may also lie in ``.csv`` or ``.jsonl`` files; a cell of
    a CSV that holds a JSON list of texts is that list.
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
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
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
            if given not in (None, _Fields.model_fields["max_skipped"].default):
                raise ValueError(
                    f"parts.{number}.data.max_skipped: {given}: set it on the mixture, which is "
                    "judged as a whole"
                )
        return self


DataSection = Annotated[
    ScenesData | ShardsData | FolderData | TableData | BoxesData | MixtureData,
    Field(discriminator="kind"),
]
