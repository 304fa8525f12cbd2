"""Orders that are computed: permutations by every sign, and the promises of an array's order."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptft.data.hashing import first_of_permutation, hash_integers, permutation
from ptft.data.reading.order import BalancedOrder, Order
from ptft.data.shuffled import ShuffledNumbers


@settings(max_examples=60, deadline=None, derandomize=True)
@given(key=st.integers(0, 2**64 - 1), count=st.integers(1, 3000))
def test_every_number_comes_once(key: int, count: int) -> None:
    numbers = ShuffledNumbers(key, count)
    found = numbers.at(np.arange(count))
    assert np.array_equal(np.sort(found), np.arange(count))
    some = range(0, count, 1 + count // 20)
    assert [numbers[place] for place in some] == found[some].tolist()


def test_numbers_are_pinned() -> None:
    """Runs go on by them on every machine, so they may never change."""
    assert ShuffledNumbers(7, 10).at(np.arange(10)).tolist() == PINNED
    assert [ShuffledNumbers(7, 10**15)[place] for place in (0, 1, 10**14)] == FAR


PINNED = [2, 9, 8, 0, 1, 7, 3, 4, 5, 6]
FAR = [678955999836433, 496638404555285, 116803889729951]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(key=st.integers(0, 2**64 - 1), count=st.integers(1, 500), limit=st.integers(0, 600))
def test_the_first_of_a_permutation_are_found_without_the_rest(
    key: int, count: int, limit: int
) -> None:
    expected = np.sort(permutation(key, count)[:limit])
    for piece in (7, 64, 1 << 20):
        assert np.array_equal(first_of_permutation(key, count, limit, piece), expected)


def even(cells: np.ndarray, spread: int) -> bool:
    """Whether counts are as chance makes them: chi-square within 5 of its deviations."""
    mean = cells.mean()
    chi = float(((cells - mean) ** 2 / mean).sum())
    return abs(chi - spread) < 5 * (2 * spread) ** 0.5


def test_small_permutations_are_alike() -> None:
    """Of the smallest that is computed, over keys: each number at each place, and behind each."""
    count, keys = 65, 2500
    at, behind = np.zeros((2, count, count))
    places = np.arange(count)
    for key in range(keys):
        found = ShuffledNumbers(hash_integers(5, key), count).at(places)
        np.add.at(at, (places, found), 1)
        np.add.at(behind, (found[:-1], found[1:]), 1)
    assert even(at, (count - 1) ** 2)
    assert even(behind[~np.eye(count, dtype=bool)], count * (count - 1) - 1)


def pairs(one: np.ndarray, other: np.ndarray, count: int, bins: int = 32) -> np.ndarray:
    cells = np.zeros((bins, bins))
    np.add.at(cells, (one * bins // count, other * bins // count), 1)
    return cells


@pytest.mark.parametrize("count", [200_003, 1 << 18])
def test_numbers_tell_nothing_of_their_places_or_of_each_other(count: int) -> None:
    """Of a permutation the rows and columns of such a table are fixed: 31 x 31 cells are free."""
    places = np.arange(count)
    found = ShuffledNumbers(3, count).at(places)
    other = ShuffledNumbers(4, count).at(places)
    for one, two in (
        (places, found),
        (found, other),  # of two epochs
        (found, np.roll(found, 1)),
        (found, np.roll(found, 512)),
    ):
        assert even(pairs(one, two, count), 31 * 31)
    low = np.zeros((32, 32))
    np.add.at(low, (places % 32, found % 32), 1)
    assert even(low, 31 * 31)
    steps = np.bincount((found - np.roll(found, 1)) % count * 64 // count, minlength=64)
    assert even(steps, 63)


@pytest.mark.parametrize(
    ("count", "window", "blocks"),
    [(1, None, None), (2103, None, None), (103, 10, None), (103, 30, [0, 7, 50, 51, 90])],
)
def test_an_epoch_visits_each_sample_once(
    count: int, window: int | None, blocks: list[int] | None
) -> None:
    order = Order(count, 3, window, None if blocks is None else np.array(blocks), most=5)
    row = [order[place] for place in range(3 * count)]
    for epoch in range(3):
        assert sorted(row[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert count == 1 or row[:count] != row[count : 2 * count]
    fresh = pickle.loads(pickle.dumps(order))
    assert [fresh[place] for place in range(3 * count - 1, -1, -7)] == row[::-7]
    for place in range(0, count, 1 + count // 9):
        number = place % count // order.window
        members = row[number * order.window : min((number + 1) * order.window, count)]
        others = sorted([row[place], *order.replacements(place)])
        assert others == sorted(members) if len(members) <= 1000 else set(others) < set(members)


def test_pieces_are_read_together_and_announced() -> None:
    blocks = np.arange(0, 1040, 20)
    order = Order(1040, 0, window=130, blocks=blocks, most=100)
    for start in range(0, 1040, 130):
        window = {order[start + place] // 20 for place in range(130)}
        assert len(window) in (7, 8)
        coming = order.coming(start + 5)
        assert coming is not None and coming is order.coming(start + 100)
        assert window <= set((coming // 20).tolist())
        assert len(coming) <= 16, "one of a piece is enough"
    assert Order(1000, 0, most=100).coming(0) is None


def test_a_set_that_an_array_holds_comes_as_it_always_did() -> None:
    blocks = np.array([0, 20, 41, 300])
    for window, pieces, redraw in itertools.product((None, 70), (None, blocks), (False, True)):
        old, new = (Order(400, 1, window, pieces, redraw, version) for version in (1, 2))
        assert [old[place] for place in range(900)] == [new[place] for place in range(900)]
    labels = np.random.default_rng(0).integers(-1, 5, 400)
    first, second = BalancedOrder(labels, 3, 1), BalancedOrder(labels, 3, 2)
    assert [first[place] for place in range(900)] == [second[place] for place in range(900)]


def test_a_run_of_before_keeps_the_order_of_an_array() -> None:
    count = (1 << 20) + 1
    old, new = Order(count, 3, version=1), Order(count, 3)
    row = permutation(hash_integers(3, 0x6F72, 1, 0), count)
    places = range(count, 2 * count, 100_000)
    assert [old[place] for place in places] == row[::100_000][: len(places)].tolist()
    assert [new[place] for place in places] != [old[place] for place in places]


def test_no_part_of_a_large_order_is_kept() -> None:
    order = Order(10**15, 0)
    assert len({order[place] for place in (0, 1, 10**14, 10**15, 2 * 10**15)}) == 5
    assert len(pickle.dumps(order)) < 1000
    assert len(set(order.replacements(5)) | {order[5]}) == 1001
    redrawn = Order(10**15, 0, redraw=True)
    assert len({redrawn[place] for place in range(50)}) == 50


def test_classes_take_turns_in_a_large_set_too() -> None:
    count = (1 << 20) + 50
    labels = np.zeros(count, np.int64)
    labels[7:17], labels[17:120], labels[120] = 1, 2, -1  # few are an array, many are computed
    order = BalancedOrder(labels, 0)
    row = [order[place] for place in range(630)]
    assert all(sorted(labels[row[at : at + 3]].tolist()) == [0, 1, 2] for at in range(0, 630, 3))
    once = [sample for sample in row if labels[sample] == 1]
    assert sorted(once[:10]) == sorted(once[10:20]) == list(range(7, 17))
    many = [sample for sample in row if labels[sample] == 2]
    assert sorted(many[:103]) == sorted(many[103:206]) == list(range(17, 120))
    assert many[:103] != many[103:206]
    fresh = pickle.loads(pickle.dumps(order))
    assert [fresh[place] for place in range(629, -1, -1)] == row[::-1]
    others = list(itertools.islice(order.replacements(row.index(once[0])), 12))
    assert set(others[:9]) | {once[0]} == set(range(7, 17)) and labels[others[10]] != 1
