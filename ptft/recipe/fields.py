"""What the fields of a sample mean: keys that several kinds of data have."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ptft.recipe.section import Section

__all__ = ["Fields"]


class Fields(Section):
    """How the fields of a sample become captions and a label."""

    captions: list[str] = Field(default=["{txt}"], min_length=1)
    """Templates over a sample's fields, one caption each (``"{name}, {keywords}"``). A field that
    is a list gives one caption an entry when it stands alone, else it is joined by commas. Training
    draws one of a sample's captions each time it is seen."""

    label: str | None = None
    """The field that holds the class: a name, or a whole number that is a place in the names which
    the source itself gives (``ClassLabel``) or ``classes`` lists; where nobody gives names, the
    number is the name. Absent: ``cls`` where shards have it, the folder's name for ``folder``."""

    labels: Literal["one", "many"] = "one"
    """Classes of a sample. ``many``: any number of those that ``label`` lists (names or numbers, as
    one), and ``objective.kind: classify`` learns each by itself, with a sigmoid. An empty list is a
    sample of none of the classes, and learned as that; null says nothing, and is left out. Both are
    counted and said. In files that have no lists a JSON list, or see ``label_separator``."""

    label_separator: str | None = Field(default=None, min_length=1)
    """What stands between the labels of a text, such as ``;`` or ``|`` in a CSV. Absent: a text is
    one label, or a JSON list of them."""

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

    group: str | None = None
    """The field that says which samples belong together beyond their picture (``patient``,
    ``video``): no ``hold_out`` parts them, and ``ptft check`` tells those of ``val`` and ``test``
    that ``train`` has too. Each row stays a sample."""

    hold_out: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Where there is no ``val``: it is this share of ``train``, which no run learns from; of each
    class alike, and the same for every seed. What has one picture, or one
    ``group``, is on one side."""

    max_pixels: int = Field(default=64_000_000, ge=1)
    """A picture of more pixels is refused before it is decoded, and counted as oversized."""

    max_skipped: float = Field(default=0.01, ge=0.0, le=1.0)
    """Largest share of the samples seen that may be skipped for a fault; beyond it the run stops.
    Judged once 1,000 samples were seen, or the whole set where it is smaller. One bad sample alone
    never stops a run; nor, in a set of which this share is ten samples or more, do ten different
    ones. 0: the first one does. Labels that are no class are held to the same share of the set
    when it is opened."""

    @model_validator(mode="after")
    def _one_val(self) -> "Fields":
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

    @model_validator(mode="after")
    def _several(self) -> "Fields":
        if self.labels == "one":
            if self.label_separator is not None:
                raise ValueError(
                    f"label_separator: {self.label_separator!r} with labels: one; allowed: null, "
                    "or labels: many"
                )
            return self
        for key, value, allowed in (
            ("boxes", self.boxes, "null"),
            (
                "shots",
                getattr(self, "shots", None),
                "null, or limit",
            ),
            ("resample", self.resample == "class" and self.resample, "none, uniform"),
            ("streaming", getattr(self, "streaming", False), "false: they are read beforehand"),
        ):
            if value:
                raise ValueError(f"{key}: {value!r} with labels: many; allowed: {allowed}")
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
