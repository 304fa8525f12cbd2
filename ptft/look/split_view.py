"""One split of the page: figures, charts, faults, and samples as the model will see them."""

from dataclasses import dataclass

from ptft.data.checks.check import Checked
from ptft.data.checks.survey import Survey
from ptft.errors import FAULTS
from ptft.look.charts import histogram, scatter
from ptft.look.model_view import ModelView
from ptft.look.samples import SampleView, SplitSamples
from ptft.pages.chart import Bars, Chart

__all__ = ["SplitView", "split_view"]

_KINDS = 8  # of forms
_SMALL = 96  # pixels of a model's picture that is shown dot by dot
_ORIENTATIONS = {
    1: "upright",
    2: "mirrored",
    3: "upside down",
    4: "upside down, mirrored",
    5: "on its side, mirrored",
    6: "on its left side",
    7: "on its other side, mirrored",
    8: "on its right side",
}


@dataclass(frozen=True)
class SplitView:
    """What the page says of a split.

    Attributes:
        label: its name.
        read_by: who reads it, in words.
        facts: counts by what they count.
        notes: what was joined, passed over and taken for something, and examples of twins.
        looked: pictures that were decoded.
        faults: kind, what it means, count and examples.
        sizes: of its pictures; None without any.
        extremes: which kind, width and height, and the sample's name.
        smaller: how many are smaller than the model's pictures, in words; "" for none.
        bars: formats and orientations.
        lengths: of captions; None without any.
        small: whether pictures are shown dot by dot.
        samples: some of them, by a heading.
    """

    label: str
    read_by: str
    facts: dict[str, str]
    notes: list[str]
    twins: list[str]
    looked: int
    faults: list[tuple[str, str, int, list[str]]]
    sizes: Chart | Bars | None
    extremes: list[tuple[str, str, str]]
    smaller: str
    bars: list[Bars]
    lengths: Chart | None
    small: bool
    samples: dict[str, list[SampleView]]


def split_view(found: Checked, shown: SplitSamples, view: ModelView, read_by: str) -> SplitView:
    """Gather everything that the page says about a split.

    Args:
        shown: some of its samples, as the model takes them.
        read_by: who reads it, in words.
    """
    survey, twins = found.survey, found.twins
    examples = {
        "There twice": twins.inside[1],
        "In two classes": twins.torn[1],
        f"In {twins.where} too": twins.shared[1],
    }
    across, down = _model_size(view)
    below = sum(min(size) < min(across, down) for size in survey.sizes)
    alike = len(set(survey.sizes)) == 1
    smaller = f"{below:,} of {len(survey.sizes):,} are smaller than the model's pictures"
    return SplitView(
        label=found.label,
        read_by=read_by,
        facts=_facts(found),
        notes=survey.said,
        twins=[f"{what}, for example: {words}" for what, words in examples.items() if words],
        looked=survey.looked,
        faults=[
            (kind, FAULTS[kind], count, list(names))
            for kind, (count, names) in survey.faults.items()
        ],
        sizes=_sizes(survey, view) if survey.sizes else None,
        extremes=[
            (kind, f"{width:,} x {height:,}", name)
            for kind, (name, width, height) in survey.extremes.items()
            if not alike
        ],
        smaller=smaller if below and not alike else "",
        bars=_bars(survey),
        lengths=_lengths(survey),
        small=max(across, down) <= _SMALL,
        samples=_samples(survey, shown),
    )


def _facts(found: Checked) -> dict[str, str]:
    survey, twins = found.survey, found.twins
    facts = {
        "samples": survey.samples,
        "classes": None if survey.classes is None else len(survey.classes),
        "without a class": survey.unlabelled or None,
        "pictures looked at": survey.looked or None,
        "of them turned by EXIF": survey.turned if survey.looked else None,
        "pictures absent": survey.absent[0] or None,
        "captions read": survey.words or None,
        "of them different": survey.distinct if survey.words else None,
        "samples without a caption": survey.without if survey.words else None,
    }
    if twins.compared:
        facts |= {"pictures compared": twins.compared, "there twice": twins.inside[0]}
        if survey.classes is not None:
            facts["of them in two classes"] = twins.torn[0]
        if not found.learned:
            facts["learned from, too"] = twins.shared[0]
    return {name: f"{count:,}" for name, count in facts.items() if count is not None}


def _sizes(survey: Survey, view: ModelView) -> Chart | Bars:
    across, down = survey.sizes[0]
    if len(set(survey.sizes)) == 1:
        count = len(survey.sizes)
        return Bars(
            "Widths and heights", [(f"{across:,} x {down:,}", count, f"{count:,}")], "all alike"
        )
    width, height = _model_size(view)
    note = f"dashed: the model's {width} x {height}"
    return scatter("Widths and heights", survey.sizes, (width, height), note)


def _bars(survey: Survey) -> list[Bars]:
    drawn = []
    if survey.sizes:
        forms = dict(list(survey.forms.items())[:_KINDS])
        rest = sum(survey.forms.values()) - sum(forms.values())
        forms |= {"others": rest} if rest else {}
        drawn.append(_counted("Formats and depths", forms, "format, Pillow's mode"))
    if survey.turned:
        words = {_ORIENTATIONS[key]: count for key, count in survey.orientations.items()}
        drawn.append(_counted("How they lie, by EXIF", words, "read upright"))
    return drawn


def _counted(title: str, counts: dict[str, int], note: str) -> Bars:
    return Bars(title, [(name, count, f"{count:,}") for name, count in counts.items()], note)


def _lengths(survey: Survey) -> Chart | None:
    if survey.lengths is None:
        return None
    least, middle, most = survey.lengths
    note = f"{least:,} to {most:,}, median {middle:,g}"
    return histogram("Length of captions", survey.characters, "characters", note)


def _samples(survey: Survey, shown: SplitSamples) -> dict[str, list[SampleView]]:
    count, seen = len(shown.classes), len(survey.seen)
    each = f"{count:,} of the {seen:,} classes" if count < seen else "each class"
    groups = {"The first samples": shown.first, f"One of {each}": shown.classes}
    return {title: group for title, group in groups.items() if group}


def _model_size(view: ModelView) -> tuple[int, int]:
    """Width and height of what the model takes."""
    height, width = view.preprocess.size
    return width, height
