"""How an expression is written tells what searching by it may cost."""

import pytest

from ptft.preprocess.expressions import endless, is_square

_LETTERS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{Lm}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
)


@pytest.mark.parametrize(
    ("pattern", "square"),
    [
        (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+", False),  # CLIP
        (r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", True),  # GPT-2
        (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+", True),  # Llama 3
        (rf"{_LETTERS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}]+[\r\n/]*|\s*[\r\n]+|\s+", True),  # GPT-4o
        (r" {2,}", False),  # XLM-R
        (r"[!-/:-~]?[A-Za-z]+|\s+$", True),  # DeepSeek
        (r"a*+b", False),
    ],
)
def test_those_of_known_tokenizers_are_read(pattern: str, square: bool) -> None:
    assert endless(pattern) is None
    assert is_square(pattern) == square


@pytest.mark.parametrize(
    "pattern",
    [
        *("q*q*x", "q+?q+?x", "(?=.*q.*x)q", "q*(?:q*x)", "(?:a|q*)q*x", "q*(?<!q*x)b", "q*.*$"),
        *("a?" * 5 + "b", "q{1,9}q{1,9}x", "q{0,}q{0,300}x", "(?:q*)?(?:q*)?x"),
    ],
)
def test_repeats_after_repeats_are_refused(pattern: str) -> None:
    assert endless(pattern) == "repeats after repeats"
