"""Captions that a model does not read to their end."""

import json
from pathlib import Path

import pytest
import torch

from ptft.data import open_split
from ptft.evaluate import evaluate
from ptft.evaluate.figures import count_cut
from ptft.recipe import FolderData, RetrievalEvaluation
from ptft.train.setup import cut_notes
from tests.support.shards import picture
from tests.support.tiny import arch_section, build

TEXTS = [
    "a cat",
    "a cat <end_of_text> dog",
    "word " * 200,
    "x <END_OF_TEXT> y",
    "a <|endoftext|> b",
]


@pytest.fixture
def section(tmp_path: Path) -> FolderData:
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(TEXTS)]
    for number in range(len(rows)):
        (tmp_path / f"{number}.png").write_bytes(picture(30 * number))
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FolderData(train=str(tmp_path), val=str(tmp_path))


def test_captions_cut_short_are_counted_and_named(section: FolderData) -> None:
    model = build(arch_section())
    tokenizer, stops = model.spec.tokenizer, model.spec.text_stops
    assert stops
    cut = count_cut(TEXTS, tokenizer, stops=stops)
    assert cut == ((2, TEXTS[1]), (1, TEXTS[2]))
    assert count_cut(TEXTS, tokenizer, stops=False).early == (0, "")
    notes = cut_notes(open_split(section, "train"), tokenizer, stops=stops)
    assert len(notes) == 2
    assert notes[0].startswith("2 of 5 captions looked at end early") and TEXTS[1] in notes[0]
    assert f"1 of 5 captions looked at are cut after {tokenizer.context_length} tokens" in notes[1]
    with torch.no_grad():  # what is counted as lost is not read, and what is not is
        one, two = model.encode_text(torch.from_numpy(tokenizer(["a cat", TEXTS[1]])))
        three, four = model.encode_text(torch.from_numpy(tokenizer(["a", TEXTS[4]])))
    assert torch.allclose(one, two, atol=1e-5)
    assert not torch.allclose(three, four, atol=1e-3)


def test_an_evaluation_counts_them_too(section: FolderData) -> None:
    model = build(arch_section())
    told: list[str] = []
    item = RetrievalEvaluation(ks=[1])
    found = evaluate(model, [item], section, seed=0, workers=0, tell=told.append)["retrieval"]
    assert (found["captions_ended_early"], found["captions_too_long"]) == (2, 1)
    assert told == []
