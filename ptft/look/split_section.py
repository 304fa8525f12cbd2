"""One split of the page: figures, drawings, faults, and samples as the model will see them."""

from collections.abc import Iterable, Sequence

from ptft.data.checks.check import Checked
from ptft.data.checks.survey import Survey
from ptft.errors import FAULTS
from ptft.look.drawings import bars, histogram, scatter
from ptft.look.model_view import ModelView
from ptft.look.shown import Shown, ShownSplit
from ptft.pages.markup import Markup, element, join

__all__ = ["split_section"]

_CAPTIONS = 4  # of a sample
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


def split_section(
    found: Checked, shown: ShownSplit, view: ModelView, read_by: str, anchor: str
) -> Markup:
    """Everything about a split.

    Args:
        read_by: who reads it, in words.
        anchor: the element's id.
    """
    survey = found.survey
    many = len(shown.classes) < len(survey.seen)
    each = f"{len(shown.classes):,} of the {len(survey.seen):,} classes" if many else "each class"
    return element(
        "section",
        element("h2", found.label, " ", element("span", read_by, class_="faint")),
        _facts(found),
        _list("notes", survey.said),
        _faults(survey),
        _drawings(survey, view),
        _samples("The first samples", shown.first, view),
        _samples(f"One of {each}", shown.classes, view),
        id=anchor,
    )


def _facts(found: Checked) -> Markup:
    survey, twins = found.survey, found.twins
    facts = {
        "samples": f"{survey.samples:,}",
        "classes": None if survey.classes is None else f"{len(survey.classes):,}",
        "without a class": f"{survey.unlabelled:,}" if survey.unlabelled else None,
        "pictures looked at": f"{survey.looked:,}" if survey.looked else None,
        "of them turned by EXIF": f"{survey.turned:,}" if survey.looked else None,
        "pictures absent": f"{survey.absent[0]:,}" if survey.absent[0] else None,
        "captions read": f"{survey.words:,}" if survey.words else None,
        "of them different": f"{survey.distinct:,}" if survey.words else None,
        "samples without a caption": f"{survey.without:,}" if survey.words else None,
    }
    if twins.compared:
        facts["pictures compared"] = f"{twins.compared:,}"
        facts["there twice"] = f"{twins.inside[0]:,}"
        if survey.classes is not None:
            facts["of them in two classes"] = f"{twins.torn[0]:,}"
        if not found.learned:
            facts["learned from, too"] = f"{twins.shared[0]:,}"
    shown = (
        element("div", element("dt", name), element("dd", value))
        for name, value in facts.items()
        if value is not None
    )
    examples = {
        "There twice": twins.inside[1],
        "In two classes": twins.torn[1],
        f"In {twins.where} too": twins.shared[1],
    }
    lines = [f"{what}, for example: {words}" for what, words in examples.items() if words]
    return join((element("dl", *shown), _list("notes", lines) or Markup("")))


def _list(kind: str, lines: Sequence[str]) -> Markup | None:
    return element("ul", *(element("li", line) for line in lines), class_=kind) if lines else None


def _faults(survey: Survey) -> Markup | None:
    if not survey.faults:
        return None
    rows = [
        element(
            "tr",
            element("th", kind, scope="row", title=FAULTS[kind]),
            element("td", f"{count:,}"),
            element("td", *(element("div", one) for one in examples)),
        )
        for kind, (count, examples) in survey.faults.items()
    ]
    table = element("table", element("tbody", *rows), class_="words")
    title = element("h3", f"Faults of the {survey.looked:,} pictures looked at")
    return element("div", title, table, class_="faults")


def _drawings(survey: Survey, view: ModelView) -> Markup | None:
    drawn: list[Markup] = []
    if survey.sizes:
        drawn.append(_sizes(survey, view))
        forms = dict(list(survey.forms.items())[:_KINDS])
        rest = sum(survey.forms.values()) - sum(forms.values())
        forms |= {"others": rest} if rest else {}
        drawn.append(bars("Formats and depths", forms, "format, Pillow's mode"))
    if survey.turned:
        words = {_ORIENTATIONS[key]: count for key, count in survey.orientations.items()}
        drawn.append(bars("How they lie, by EXIF", words, "read upright"))
    if survey.lengths is not None:
        least, middle, most = survey.lengths
        note = f"{least:,} to {most:,}, median {middle:,g}"
        drawn.append(histogram("Length of captions", survey.characters, "characters", note))
    return element("div", *drawn, class_="charts") if drawn else None


def _sizes(survey: Survey, view: ModelView) -> Markup:
    height, width = view.preprocess.size
    if len(set(survey.sizes)) == 1:
        across, down = survey.sizes[0]
        return bars(
            "Widths and heights", {f"{across:,} x {down:,}": len(survey.sizes)}, "all alike"
        )
    below = sum(1 for across, down in survey.sizes if min(across, down) < min(width, height))
    note = f"dashed: the model's {width} x {height}"
    drawing = scatter("Widths and heights", survey.sizes, (width, height), note)
    rows = [
        element(
            "tr",
            element("th", kind, scope="row"),
            element("td", f"{across:,} x {down:,}"),
            element("td", name),
        )
        for kind, (name, across, down) in survey.extremes.items()
    ]
    table = element("table", element("tbody", *rows), class_="words extremes")
    smaller = f"{below:,} of {len(survey.sizes):,} are smaller than the model's pictures"
    return element("div", drawing, table, element("p", smaller, class_="faint") if below else None)


def _samples(title: str, samples: Sequence[Shown], view: ModelView) -> Markup | None:
    if not samples:
        return None
    small = max(view.preprocess.size) <= _SMALL
    cells = (_sample(one) for one in samples)
    grid = element("ul", *cells, class_="samples small" if small else "samples")
    return join((element("h3", title), grid))


def _sample(one: Shown) -> Markup:
    size = "" if one.size is None else f", {one.size[0]} x {one.size[1]}"
    title = f"{one.name}{size}"
    words = one.label or "; ".join(one.captions[:1]) or one.name
    image: Markup | None = None
    if one.trouble:
        image = element("p", one.trouble, class_="broken")
    elif one.image is not None:
        image = element("img", src=one.image, alt=words)
    label = None if one.label is None else element("b", one.label)
    return element("li", image, label, *_captions(one), title=title)


def _captions(one: Shown) -> Iterable[Markup]:
    for caption in one.captions[:_CAPTIONS]:
        yield element("span", caption)
    more = len(one.captions) - _CAPTIONS
    if more > 0:
        yield element("span", f"and {more:,} more", class_="faint")
    if not one.captions and one.label is None and not one.trouble:
        yield element("span", "no caption, no class", class_="faint")
