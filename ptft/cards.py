"""GPUs that are commonly rented: memory, arithmetic, bandwidth, and what each system calls them."""

import re
from functools import cache
from pathlib import Path

from pydantic import Field, TypeAdapter

from ptft.errors import RecipeError, suggest
from ptft.recipe.section import Section
from ptft.recipe.yaml_text import read_yaml

__all__ = ["Card", "Machine", "Offer", "find_machine", "known_cards"]

_MOST = 1024  # GPUs of one machine, far above any that is sold


class Card(Section):
    """One GPU, as its maker describes it."""

    name: str
    memory_gb: float = Field(gt=0)
    """10^9 bytes."""
    bf16_tflops: float | None
    """10^12 multiplications and additions a second, dense; None: it has no bf16."""
    fp32_tflops: float = Field(gt=0)
    bandwidth_gb: float = Field(gt=0)
    """10^9 bytes a second, of its memory."""
    skypilot: str
    hf_jobs: dict[int, str]
    """Flavours by the number of GPUs."""
    source: str
    """The document that the figures are from."""


class Machine(Section):
    """A machine's GPUs: ``h100x8``."""

    key: str
    """Of the card."""
    card: Card
    count: int = Field(ge=1)

    @property
    def label(self) -> str:
        """As it is written."""
        return f"{self.key}x{self.count}"


class Offer(Section):
    """What is rented."""

    machine: Machine
    price: float | None = None
    """Of one GPU for an hour, in any currency; None: not given."""
    utilisation: float | None = None
    """Of the GPU's arithmetic, where it is known."""


@cache
def known_cards() -> dict[str, Card]:
    """All, by their key (``a100-80``)."""
    text = (Path(__file__).parent / "cards.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Card]).validate_python(read_yaml(text))


def find_machine(text: str, key: str) -> Machine:
    """The GPUs that ``text`` names: ``h100``, ``h100x8``.

    Args:
        key: that the text is the value of, for the message.

    Raises:
        RecipeError: no such card; near misses are named.
    """
    cards = known_cards()
    name, count = text.strip().lower(), 1
    if name not in cards and (match := re.fullmatch(r"(.+?)[x:](\d{1,4})", name)):
        name, count = match[1], int(match[2])
    if name not in cards:
        near = [card for card in cards if card.startswith(name)] or cards
        raise RecipeError(f"{key}: {text!r}: no card that is known; {suggest(name, near)}")
    if not 1 <= count <= _MOST:
        raise RecipeError(f"{key}: {text!r}: {count} GPUs; allowed: 1 to {_MOST}")
    return Machine(key=name, card=cards[name], count=count)
