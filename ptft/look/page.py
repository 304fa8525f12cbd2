"""``look.html``: what a data section holds, for people, in one file that asks no network.

Everything that comes from data is escaped (:mod:`ptft.pages.markup`), and no script runs at all.
"""

from dataclasses import dataclass

from ptft import __version__
from ptft.data.checks.check import Checked
from ptft.look.class_table import class_tables
from ptft.look.model_view import ModelView
from ptft.look.shown import ShownSplit
from ptft.look.split_section import split_section
from ptft.pages.document import asset, document
from ptft.pages.markup import Markup, element

__all__ = ["Content", "Seen", "write_page"]


@dataclass(frozen=True)
class Seen:
    """A split.

    Attributes:
        found: what was seen of it.
        shown: some of its samples.
        read_by: who reads it, in words.
    """

    found: Checked
    shown: ShownSplit
    read_by: str


@dataclass(frozen=True)
class Content:
    """What the page says.

    Attributes:
        title: of the page.
        target: what was looked at, as it was asked for.
        every: every picture was decoded.
        view: what the model does to samples.
        said: what was guessed of a path.
        section: the guessed data section as YAML; "" for a recipe.
        problems: what would stop a run or make its figures worthless.
        warnings: what is worth knowing.
        splits: in the order in which they are read.
    """

    title: str
    target: str
    every: bool
    view: ModelView
    said: list[str]
    section: str
    problems: list[str]
    warnings: list[str]
    splits: list[Seen]


def write_page(content: Content) -> str:
    """The page as HTML."""
    sections = [
        split_section(seen.found, seen.shown, content.view, seen.read_by, _anchor(number))
        for number, seen in enumerate(content.splits)
    ]
    return document(
        f"{content.title} \u00b7 data",
        _head(content),
        _guessed(content),
        _overview(content),
        class_tables([seen.found for seen in content.splits]),
        *sections,
        style=asset("ptft.look", "look.css"),
        generator=f"ptft {__version__}",
    )


def _anchor(number: int) -> str:
    return f"split-{number}"


def _head(content: Content) -> Markup:
    count = len(content.problems)
    state = f"{count:,} problem{'s' if count > 1 else ''}" if count else "no problem found"
    own = {f"{one.found.label}: {said}" for one in content.splits for said in one.found.survey.said}
    warnings = [line for line in content.warnings if line not in own]  # these stand at their split
    return element(
        "div",
        element(
            "header",
            element("h1", content.title),
            element("span", state, class_="state wrong" if count else "state right"),
        ),
        element("p", content.target, class_="faint") if content.target != content.title else None,
        _lines("problems", content.problems),
        _lines("warnings", warnings),
        element("p", content.view.said, class_="faint"),
    )


def _lines(kind: str, lines: list[str]) -> Markup | None:
    return element("ul", *(element("li", line) for line in lines), class_=kind) if lines else None


def _guessed(content: Content) -> Markup | None:
    if not content.section:
        return None
    return element(
        "section",
        element("h2", "Guessed"),
        _lines("notes", content.said),
        element("p", "For a recipe:", class_="faint"),
        element("pre", content.section),
    )


def _overview(content: Content) -> Markup:
    names = ("split", "samples", "classes", "captions that differ", "pictures", "read by")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    rows = [_overview_row(seen, _anchor(number)) for number, seen in enumerate(content.splits)]
    how = (
        "Counts are of all samples; sizes, forms, faults and captions of some, spread evenly "
        "(--all looks at every one)."
    )
    if content.every:
        how = "Every picture was decoded."
    return element(
        "section",
        element("h2", "Splits"),
        element("div", element("table", element("tbody", head, *rows)), class_="wide"),
        element("p", how, class_="faint"),
    )


def _overview_row(seen: Seen, anchor: str) -> Markup:
    survey = seen.found.survey
    forms = ", ".join(f"{count:,} {form}" for form, count in list(survey.forms.items())[:3])
    captions = f"{survey.distinct:,} of {survey.words:,}" if survey.words else "\u2013"
    classes = "\u2013" if survey.classes is None else f"{len(survey.classes):,}"
    cells = (f"{survey.samples:,}", classes, captions, forms or "\u2013", seen.read_by)
    link = element("a", seen.found.label, href=f"#{anchor}")
    first = element("th", link, scope="row")
    return element("tr", first, *(element("td", cell) for cell in cells))
