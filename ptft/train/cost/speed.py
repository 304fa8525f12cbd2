"""How fast a card trains such models: what published runs reached, carried over to other cards."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import TypeAdapter

from ptft.cards import Card, known_cards
from ptft.recipe.section import Section
from ptft.recipe.yaml_text import read_yaml

__all__ = ["SOURCES", "PublishedRun", "Speed", "card_speed", "published_runs"]

SOURCES = {
    "laion": (
        "https://github.com/LAION-AI/scaling-laws-openclip, trained_models_info.csv at 652b1e7"
    ),
    "open_clip": "https://github.com/mlfoundations/open_clip, docs/PRETRAINED.md at 89fb801",
    "nemo": (
        "https://docs.nvidia.com/nemo-framework/user-guide/latest/multimodalmodels/"
        "visionlanguagefoundation/clip/perf.html"
    ),
}
"""Where the published figures stand."""


class PublishedRun(Section):
    """A run, and what it is said to have reached."""

    run: str
    arch: str
    gflop: float
    """10^9 multiplications and additions of a sample's step."""
    card: str
    gpus: int
    samples_per_second: float
    """Of all GPUs together."""
    software: Literal["open_clip", "nemo"]
    source: Literal["laion", "open_clip", "nemo"]

    @property
    def utilisation(self) -> float:
        """The share of the card's dense bf16 arithmetic that the step's own takes."""
        reached = self.gflop * 1e9 * self.samples_per_second / self.gpus
        return reached / (1e12 * _peak(known_cards()[self.card]))


@dataclass(frozen=True)
class Speed:
    """What a card is taken to reach.

    Attributes:
        flops: multiplications and additions a second.
        utilisation: of the card's dense arithmetic.
        basis: where that comes from, in words.
    """

    flops: float
    utilisation: float
    basis: str


@cache
def published_runs() -> tuple[PublishedRun, ...]:
    """All that are known."""
    text = (Path(__file__).parent / "published.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[PublishedRun, ...]).validate_python(read_yaml(text))


def card_speed(
    card: Card, *, utilisation: float | None = None, without: PublishedRun | None = None
) -> Speed:
    """What a card is taken to reach in such a step.

    The median utilisation of published runs of open_clip on A100s is carried over by the cards'
    memory bandwidth: a step of 2022's kernels waits for memory more than for arithmetic, and from
    A100 to H100 NeMo's published step gains as the bandwidth does. No card is taken to reach more
    of its arithmetic than the best published run did of its own.

    Args:
        utilisation: of the card's dense arithmetic, where somebody knows it; then nothing is
            carried over.
        without: a run to leave out, where that run is predicted.
    """
    if utilisation is not None:
        return Speed(
            utilisation * 1e12 * _peak(card), utilisation, "the utilisation that was given"
        )
    runs = [run for run in published_runs() if run != without]
    usual = [run for run in runs if run.software == "open_clip"]
    typical = median(run.utilisation for run in usual)
    best = max(run.utilisation for run in runs)
    (key,) = {run.card for run in usual}
    there = known_cards()[key]
    carried = typical * _peak(there) * card.bandwidth_gb / there.bandwidth_gb
    reached = min(carried, best * _peak(card))
    of = "" if card == there else f", carried over from {there.name} by memory bandwidth"
    return Speed(
        1e12 * reached,
        reached / _peak(card),
        f"{typical:.0%} of the arithmetic of {there.name}: the median of {len(usual)} published "
        f"runs of open_clip (their range {min(r.utilisation for r in usual):.0%} to "
        f"{max(r.utilisation for r in usual):.0%}, data and communication included){of}",
    )


def _peak(card: Card) -> float:
    """10^12 a second, in what ptft computes in there: bf16, or fp32 where the card has none."""
    return card.bf16_tflops or card.fp32_tflops
