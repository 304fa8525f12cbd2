"""Mixtures and resampling: exact shares, the same batches on any machine, whole parts."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ptft.data.open import open_split
from ptft.data.reading.order import BalancedOrder, Order
from ptft.data.sources.mixture import EPOCH, Mixture, draws_of
from ptft.errors import DataError, RecipeError
from ptft.recipe.check import check_data
from ptft.recipe.data import (
    FolderData,
    MixtureData,
    MixturePart,
    ScenesData,
    ShardsData,
    TableData,
)
from tests.support.batches import batches_of, joined, same
from tests.support.shards import picture, write_pairs, write_parquet, write_tar


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> MixtureData:
    """Shards with a broken sample, a stream, and scenes."""
    folder = tmp_path_factory.mktemp("parts")
    write_pairs(folder / "a-0.tar", 17)
    files = {f"{i}.png": picture(100 + i) for i in range(9)}
    files |= {f"{i}.txt": f"other {i}".encode() for i in range(9)}
    files["3.png"] = files["3.png"][:50]
    write_tar(folder / "a-1.tar", dict(sorted(files.items())))
    write_parquet(folder / "p.parquet", 40)
    shards = ShardsData(train=str(folder / "a-*.tar"), val=str(folder / "a-0.tar"))
    stream = TableData(train=str(folder / "p.parquet"), streaming=True, window=15)
    return MixtureData(
        parts=[
            MixturePart(data=shards, weight=3.0, name="pairs"),
            MixturePart(data=stream, weight=1.0, name="rows"),
            MixturePart(data=ScenesData(train=50, val=5, size=32), weight=0.5),
        ]
    )


def test_draws_are_the_weights_by_largest_remainder() -> None:
    assert draws_of([1, 1]) == [2048, 2048]
    assert draws_of([1, 1, 1]) == [1366, 1365, 1365]
    assert draws_of([0.1, 0.3]) == draws_of([1, 3]) == [1024, 3072]
    for weights in ([0.2, 0.7, 0.05, 1e-3], [5e-324, 5e-324], [1e300, 3e300, 1e298]):
        draws = draws_of(weights)
        assert sum(draws) == EPOCH
        top = max(weights)
        total = sum(weight / top for weight in weights)
        for count, weight in zip(draws, weights, strict=True):
            assert abs(count - EPOCH * weight / top / total) < 1
    with pytest.raises(
        RecipeError, match=r"data\.parts\.1\.weight: 0\.0001: less than one draw in"
    ):
        draws_of([1, 1e-4])


def test_every_mixture_epoch_deals_exact_shares_and_reads_each_part_straight_on(
    mixture: MixtureData,
) -> None:
    samples = open_split(mixture, "train")
    assert isinstance(samples, Mixture)
    assert len(samples) == 26 + 40 + 50
    order = samples.order(7)
    orders = []
    for epoch in range(2):
        dealt = [order.draw(epoch * EPOCH + slot) for slot in range(EPOCH)]
        for part, draws in enumerate(samples.draws):
            own = [place for number, place in dealt if number == part]
            assert own == list(range(epoch * draws, (epoch + 1) * draws))
        orders.append([part for part, _ in dealt])
    assert orders[0] != orders[1]
    other = samples.order(8)
    assert orders[0][:99] != [other.draw(slot)[0] for slot in range(99)]


def test_a_part_is_visited_whole_before_any_sample_comes_again(mixture: MixtureData) -> None:
    samples = open_split(mixture, "train")
    assert isinstance(samples, Mixture)
    order = samples.order(1)
    seen: list[list[int]] = [[], [], []]
    for position in range(900):
        seen[order.draw(position)[0]].append(order[position])
    for part, first in zip(seen, samples.firsts, strict=False):
        size = len(samples.parts[seen.index(part)])
        for start in range(0, len(part) - size + 1, size):
            assert sorted(part[start : start + size]) == list(range(first, first + size))
    fresh = pickle.loads(pickle.dumps(order))
    assert [fresh[p] for p in (0, 4095, 4096, 10**6)] == [order[p] for p in (0, 4095, 4096, 10**6)]


def test_global_batches_of_a_mixture_do_not_depend_on_who_reads(mixture: MixtureData) -> None:
    samples = open_split(mixture, "train")
    alone = joined(batches_of(samples, end=192))
    assert any(skip.name == "pairs/a-1.tar/3" for skip in alone["skipped"])
    assert {name.partition("/")[0] for name in alone["names"]} == {"pairs", "rows", "shaded"}
    assert same(alone, joined(batches_of(samples, end=192, workers=2)))
    for world in (2, 4):
        ranks = [batches_of(samples, end=192, rank=rank, world=world) for rank in range(world)]
        assert same(alone, joined([b for step in zip(*ranks, strict=True) for b in step]))


def test_a_mixture_goes_on_from_any_position(mixture: MixtureData) -> None:
    whole = joined(batches_of(open_split(mixture, "train"), end=192))
    for stopped in (12, 96, 180):
        samples = open_split(mixture, "train")
        parts = batches_of(samples, end=stopped) + batches_of(samples, start=stopped, end=192)
        assert same(whole, joined(parts))


def test_held_out_splits_are_those_of_all_parts_that_have_one(mixture: MixtureData) -> None:
    val = open_split(mixture, "val")
    assert len(val) == 17 + 5
    assert (val.name(0), val.name(17)) == ("pairs/a-0.tar/0000", "shaded/val/000000")
    assert val[3].captions == val.captions(3) == ("grey 3",)
    assert len(open_split(mixture, "test")) == 256  # of scenes alone
    one = MixtureData(parts=mixture.parts[:2])
    with pytest.raises(RecipeError, match=r"data\.test: missing; no part"):
        open_split(one, "test")
    with pytest.raises(RecipeError, match=r"data: no part has test"):
        check_data(one, "data", ("train", "test"))
    check_data(mixture, "data", ("train", "val", "test"))


def test_classes_of_parts_agree_or_are_told_apart(tmp_path: Path) -> None:
    def section(name: str, *labels: str, classes: list[str] | None = None) -> ShardsData:
        files: dict[str, bytes] = {}
        for number, label in enumerate(labels):
            files |= {f"{number}.png": picture(number), f"{number}.cls": label.encode()}
        return ShardsData(train=str(write_tar(tmp_path / f"{name}.tar", files)), classes=classes)

    one, other = section("a", "0", "1"), section("b", "1", "2")
    pairs = ShardsData(train=str(write_pairs(tmp_path / "c.tar", 3)))

    def mixed(*sections: ShardsData) -> MixtureData:
        return MixtureData(parts=[MixturePart(data=part) for part in sections])

    with pytest.raises(
        DataError, match=r"data\.parts: the classes differ: part 0 has 2 \(0, 1\), p"
    ):
        open_split(mixed(one, other), "train")
    given = ["x", "y", "z"]
    parts = [part.model_copy(update={"classes": given}) for part in (one, other)]
    samples = open_split(mixed(*parts, pairs), "train")
    assert samples.classes == given
    labels = samples.labels()
    assert labels is not None and labels.tolist() == [0, 1, 1, 2, -1, -1, -1]
    assert open_split(mixed(one, other), "train", classes=given).classes == given
    short = [part.model_copy(update={"classes": ["x"]}) for part in (one, other)]
    with pytest.raises(DataError, match=r"data\.parts\.1\.data\.train: .*of 2 of 2 samples"):
        open_split(mixed(*short), "train")


def test_drawing_with_replacement_is_even_and_stays_in_its_window() -> None:
    order = Order(50, 3, redraw=True)
    counts = Counter(order[position] for position in range(50_000))
    assert len(counts) == 50 and all(abs(n - 1000) < 160 for n in counts.values())  # 5 deviations
    once = [order[position] for position in range(50)]
    assert len(set(once)) < 50 and once != [order[50 + position] for position in range(50)]
    assert pickle.loads(pickle.dumps(order))[77] == order[77]
    blocks = np.arange(0, 1000, 20)
    near, plain = (Order(1000, 0, 100, blocks, redraw) for redraw in (True, False))
    for start in range(0, 3000, 100):
        window = {plain[start + i] for i in range(100)}
        assert {near[start + i] for i in range(100)} < window
        assert set(near.replacements(start)) | {near[start]} == window


def test_classes_are_balanced_exactly_and_their_samples_take_turns() -> None:
    labels = np.array([2] * 30 + [0] * 3 + [-1] * 4 + [5] * 1)
    order = BalancedOrder(labels, 1)
    drawn = [order[position] for position in range(90)]
    for start in range(0, 90, 3):  # a round
        assert sorted(labels[drawn[start : start + 3]].tolist()) == [0, 2, 5]
    assert sorted(index for index in drawn if labels[index] == 2) == list(range(30))
    assert Counter(index for index in drawn if labels[index] == 0) == {30: 10, 31: 10, 32: 10}
    lone = drawn.index(37)
    others = list(order.replacements(lone))
    assert len(others) == len(set(others)) == 33 and 37 not in others
    assert pickle.loads(pickle.dumps(order))[1000] == order[1000]


@pytest.mark.parametrize("resample", ["uniform", "class"])
def test_a_resampled_set_is_the_same_whoever_reads_it(tmp_path: Path, resample: str) -> None:
    for number in range(20):
        path = tmp_path / "pictures" / f"c{number // 7}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number) if number != 7 else b"no picture")
    section = FolderData.model_validate(
        {"train": str(tmp_path / "pictures"), "captions": ["a {label}"], "resample": resample}
    )
    samples = open_split(section, "train")
    alone = joined(batches_of(samples))
    assert len(set(alone["names"][:20])) < 20
    ranks = [batches_of(samples, rank=rank, world=2) for rank in range(2)]
    assert same(alone, joined([b for step in zip(*ranks, strict=True) for b in step]))
    parts = batches_of(samples, end=36) + batches_of(samples, start=36)
    assert same(alone, joined(parts))
    if resample == "class":
        assert np.bincount(alone["labels"].numpy()).tolist() == [32, 32, 32]
    assert open_split(section.model_copy(update={"val": section.train}), "val").resample == "none"


def test_balancing_needs_labels_and_a_set_that_is_read_freely(mixture: MixtureData) -> None:
    pairs, rows = (part.data for part in mixture.parts[:2])
    with pytest.raises(RecipeError, match=r"data\.resample: 'class': no sample has a label"):
        open_split(pairs.model_copy(update={"resample": "class"}), "train")
    with pytest.raises(
        RecipeError, match=r"data\.resample: 'class': this set is read a piece at a"
    ):
        open_split(rows.model_copy(update={"resample": "class"}), "train")
