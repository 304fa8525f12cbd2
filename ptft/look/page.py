"""``look.html``: what a data section holds, for people, in one file that asks no network.

Everything that comes from data is escaped (:mod:`ptft.pages.document`), and no script runs at all.
"""

from dataclasses import dataclass

from ptft import __version__
from ptft.data.checks.check import Checked
from ptft.look.class_table import class_tables
from ptft.look.model_view import ModelView
from ptft.look.samples import SplitSamples
from ptft.look.split_view import split_view
from ptft.pages.document import render

__all__ = ["PageContent", "SplitContent", "render_page"]


@dataclass(frozen=True)
class SplitContent:
    """A split, as far as it was read for the page.

    Attributes:
        found: what was seen of it.
        shown: some of its samples.
        read_by: who reads it, in words.
    """

    found: Checked
    shown: SplitSamples
    read_by: str


@dataclass(frozen=True)
class PageContent:
    """All that the page says.

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
    splits: list[SplitContent]


def render_page(content: PageContent) -> str:
    """Render the page as HTML."""
    own = {f"{one.found.label}: {said}" for one in content.splits for said in one.found.survey.said}
    return render(
        "ptft.look",
        "look.html",
        title=f"{content.title} \u00b7 data",
        generator=f"ptft {__version__}",
        style="look.css",
        name=content.title,
        target=content.target,
        every=content.every,
        problems=content.problems,
        warnings=[line for line in content.warnings if line not in own],  # these stand at a split
        preprocessing=content.view.said,
        said=content.said,
        section=content.section,
        overview=[(seen.found.label, _overview(seen)) for seen in content.splits],
        class_tables=class_tables([seen.found for seen in content.splits]),
        splits=[
            split_view(seen.found, seen.shown, content.view, seen.read_by)
            for seen in content.splits
        ],
    )


def _overview(seen: SplitContent) -> list[str]:
    """Samples, classes, captions that differ, pictures, and who reads a split."""
    survey = seen.found.survey
    forms = ", ".join(f"{count:,} {form}" for form, count in list(survey.forms.items())[:3])
    captions = f"{survey.distinct:,} of {survey.words:,}" if survey.words else "\u2013"
    classes = "\u2013" if survey.classes is None else f"{len(survey.classes):,}"
    return [f"{survey.samples:,}", classes, captions, forms or "\u2013", seen.read_by]
