"""The order of a run: every epoch whole, every position looked up alone."""

import itertools
import pickle

import numpy as np
import pytest

from ptft.data.hashing import fraction, hash_integers, permutation, text_id, uniforms
from ptft.data.reading.order import Order, rng_for
from ptft.data.sample import Subset
from ptft.data.sources.scenes import Scenes
from ptft.recipe.data import ScenesData


def test_hashes_are_pinned() -> None:
    """Orders and scenes follow from these on every machine, so they may never change."""
    assert hash_integers(1, 2) == 2554043094958247610
    assert permutation(7, 6).tolist() == [1, 5, 0, 4, 3, 2]
    assert uniforms(7, 2).tolist() == [0.3898297483912715, 0.01678829452815611]
    assert text_id("a cat") == 3745569759787347665
    assert fraction(3) == 0.5911897341980794


def test_splitmix_is_the_published_generator() -> None:
    """The first outputs of SplitMix64 seeded with 1234567 (Vigna's reference)."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = uniforms(1234567, 3)
    assert found.tolist() == [(value >> 11) * 2.0**-53 for value in expected]


def test_mix_sees_every_key_and_their_order() -> None:
    keys = [(), (0,), (0, 0), (1,), (1, 2), (2, 1), (-1,), (1, 2, 0), (2**64 + 1,)]
    hashes = [hash_integers(*key) for key in keys]
    assert len(set(hashes[:-1])) == len(keys) - 1
    assert hashes[-1] == hash_integers(1)  # keys are 64 bits


def test_permutations_are_uniform() -> None:
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    for key in range(6000):
        counts[tuple(permutation(hash_integers(5, key), 3).tolist())] += 1
    assert all(abs(count - 1000) < 150 for count in counts.values())  # 5 standard deviations


@pytest.mark.parametrize(
    ("count", "window", "blocks"),
    [(1, None, None), (103, None, None), (103, 10, None), (103, 10, [0, 7, 50, 51, 90])],
)
def test_an_epoch_visits_each_sample_once(
    count: int, window: int | None, blocks: list[int] | None
) -> None:
    order = Order(count, 3, window, None if blocks is None else np.array(blocks))
    epochs = [[order[epoch * count + i] for i in range(count)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
    if count > 1:
        assert epochs[0] != epochs[1] != epochs[2]
        other = Order(count, 4, window, order.blocks)
        assert [other[i] for i in range(count)] != epochs[0]


def test_a_window_is_shuffled_within_itself() -> None:
    order = Order(95, 0, window=10)
    for number in range(10):
        span = range(number * 10, min(number * 10 + 10, 95))
        assert {order[position] for position in span} == set(span)
        assert [order[position] for position in span] != list(span)


def test_blocks_stay_near_each_other() -> None:
    """A window over permuted blocks touches few of them: those are what memory must hold."""
    blocks = np.arange(0, 1000, 20)
    order = Order(1000, 0, window=100, blocks=blocks)
    touched = [{order[start + i] // 20 for i in range(100)} for start in range(0, 1000, 100)]
    assert all(len(window) == 5 for window in touched)
    assert touched[0] != set(range(5))


def test_any_position_is_looked_up_alone() -> None:
    order = Order(57, 1, window=13, blocks=np.array([0, 20, 40]))
    row = [order[position] for position in range(400)]
    fresh = pickle.loads(pickle.dumps(order))
    for position in (399, 0, 171, 58, 57, 56):
        assert fresh[position] == row[position]


def test_replacements_are_all_others_of_the_window_each_once() -> None:
    order = Order(45, 0)
    for position in range(60):
        assert sorted([order[position], *order.replacements(position)]) == list(range(45))
    windowed = Order(45, 0, window=20)
    assert set(windowed.replacements(3)) | {windowed[3]} == set(range(20))
    assert list(Order(1, 0).replacements(0)) == []
    assert len(list(Order(50_000, 0).replacements(9))) == 1000


def test_chance_belongs_to_the_position() -> None:
    assert rng_for(0, 5).random() == rng_for(0, 5).random()
    assert len({rng_for(seed, place).random() for seed in range(3) for place in range(30)}) == 90


def test_a_subset_is_fixed_by_its_seed_and_grows_with_its_count() -> None:
    scenes = Scenes(ScenesData(train=50), "train")
    few, more = Subset(scenes, 10, seed=1), Subset(scenes, 30, seed=1)
    assert len(few) == 10
    assert set(few.indices) < set(more.indices)
    assert few.indices.tolist() != Subset(scenes, 10, seed=2).indices.tolist()
    labels = few.labels()
    assert labels is not None
    for index in range(10):
        assert few.name(index) == scenes.name(int(few.indices[index]))
        assert few[index].captions == few.captions(index)
        assert few[index].label == labels[index]
