"""JSON that somebody wrote is bounded before Python holds it."""

import json

import pytest

from ptft.errors import ArtifactError
from ptft.files.bounds import parse_json

MOST = 4 << 20


@pytest.mark.parametrize("value", ["[]", "{}", "0"])
def test_small_values_without_end_are_refused(value: str) -> None:
    text = f"[{','.join([value] * (MOST + 1))}]"
    with pytest.raises(ArtifactError, match=f"a.json: more than {MOST} values; allowed: at most"):
        parse_json(text, "a.json", error=ArtifactError)


def test_a_text_may_be_as_long_as_a_file() -> None:
    words = {"a": "," * 100, "b": "x" * (MOST + 1)}
    assert parse_json(json.dumps(words).encode(), "a.json", error=ArtifactError) == words
