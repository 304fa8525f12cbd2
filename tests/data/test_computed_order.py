"""What is promised of an order holds where it is computed, of sets of any kind, whoever reads."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptft.data.open import open_split
from ptft.data.reading import order as orders
from ptft.data.reading.order import Order
from ptft.data.sample import SampleSet, Subset
from ptft.recipe.data import (
    DataSection,
    FolderData,
    MixtureData,
    MixturePart,
    ScenesData,
    ShardsData,
    TableData,
)
from tests.support.batches import batches_of, joined, same
from tests.support.shards import picture, write_pairs, write_parquet


@pytest.fixture(autouse=True)
def computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five samples are a large set."""
    monkeypatch.setattr(orders, "MOST", 4)


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataSection]:
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder / "s-0.tar", 17)
    write_pairs(folder / "s-1.tar", 14)
    for number in range(31):
        path = folder / "classes" / f"c{number % 5 // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number) if number != 7 else b"no picture")
    write_parquet(folder / "p.parquet", 40)
    shards = ShardsData(train=str(folder / "s-{0,1}.tar"))
    classes = {"train": str(folder / "classes"), "captions": ["a {label}"]}
    stream = TableData(train=str(folder / "p.parquet"), streaming=True, window=15)
    parts = [(shards, 3.0), (stream, 1.0), (ScenesData(train=50, val=5, size=32), 0.5)]
    return {
        "shards": shards,
        "folder": FolderData(**classes),
        "redrawn": FolderData(**classes, resample="uniform"),
        "balanced": FolderData(**classes, resample="class"),
        "stream": stream,
        "mixture": MixtureData(
            parts=[MixturePart(data=data, weight=weight) for data, weight in parts]
        ),
    }


KINDS = ["shards", "folder", "redrawn", "balanced", "stream", "mixture"]
END = 96  # positions: three epochs of the smallest


@pytest.mark.parametrize("kind", KINDS)
def test_global_batches_are_the_same_whoever_reads_them(
    sections: dict[str, DataSection], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = open_split(sections[kind], "train")
    alone = joined(batches_of(samples, end=END))
    for world in (2, 3, 4):
        ranks = [batches_of(samples, end=END, rank=rank, world=world) for rank in range(world)]
        assert same(alone, joined([batch for step in zip(*ranks, strict=True) for batch in step]))
    for stopped in (12, 60, 84):
        again = open_split(sections[kind], "train")
        parts = batches_of(again, end=stopped) + batches_of(again, start=stopped, end=END)
        assert same(alone, joined(parts))
    monkeypatch.setattr(orders, "MOST", 1 << 20)
    assert alone["names"] != joined(batches_of(samples, end=END))["names"], "it was computed"


@pytest.mark.parametrize("kind", ["balanced", "mixture"])
def test_workers_change_nothing(sections: dict[str, DataSection], kind: str) -> None:
    samples = open_split(sections[kind], "train")
    alone = joined(batches_of(samples, end=END))
    assert same(alone, joined(batches_of(samples, end=END, workers=2)))


@pytest.mark.parametrize("kind", ["shards", "stream"])
def test_every_epoch_visits_each_sample_once(sections: dict[str, DataSection], kind: str) -> None:
    samples = open_split(sections[kind], "train")
    count = len(samples)
    names = joined(batches_of(samples, end=12 * count, size=12))["names"]
    epochs = [names[start : start + count] for start in range(0, 12 * count, count)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(samples.name(index) for index in range(count))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_classes_come_equally_often(sections: dict[str, DataSection]) -> None:
    samples = open_split(sections["balanced"], "train")
    labels = samples.labels()
    assert labels is not None
    order = samples.order(1)
    row = [order[position] for position in range(3 * 26)]
    assert set(Counter(labels[row].tolist()).values()) == {26}
    for number in range(3):
        members = np.flatnonzero(labels == number).tolist()
        mine = [sample for sample in row if labels[sample] == number]
        assert sorted(mine[: len(members)]) == members


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_far_ahead_at_once(sections: dict[str, DataSection], kind: str) -> None:
    """State is one integer: nothing before a position is gone through."""
    start = 12 * 10**13
    samples = open_split(sections[kind], "train")
    whole = joined(batches_of(samples, start=start, end=start + 24))
    parts = batches_of(samples, start=start, end=start + 12)
    parts += batches_of(samples, start=start + 12, end=start + 24)
    assert same(whole, joined(parts))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    count=st.integers(1, 90),
    seed=st.integers(0, 2**63),
    window=st.none() | st.integers(1, 100),
    cuts=st.none() | st.sets(st.integers(1, 89), max_size=8),
    most=st.integers(1, 40),
)
def test_any_order_is_whole_and_looked_up_alone(
    count: int, seed: int, window: int | None, cuts: set[int] | None, most: int
) -> None:
    blocks = None if cuts is None else np.array([0, *sorted(c for c in cuts if c < count)])
    order = Order(count, seed, window, blocks, most=most)
    row = [order[position] for position in range(3 * count)]
    for epoch in range(3):
        assert sorted(row[epoch * count : (epoch + 1) * count]) == list(range(count))
    for position in range(0, 3 * count, 7):
        assert Order(count, seed, window, blocks, most=most)[position] == row[position]
    members = {row[0], *order.replacements(0)}
    assert len(members) == min(order.window, count)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**63), sizes=st.sets(st.integers(1, 200), min_size=2, max_size=4))
def test_subsets_nest(seed: int, sizes: set[int]) -> None:
    scenes: SampleSet = open_split(ScenesData(train=200), "train")
    parts = [set(Subset(scenes, size, seed).indices.tolist()) for size in sorted(sizes)]
    assert [len(part) for part in parts] == sorted(sizes)
    assert all(few < more for few, more in pairwise(parts))
