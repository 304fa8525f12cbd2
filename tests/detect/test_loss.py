"""Matching and loss of a detector, held against loops by hand in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ptft.detection import (
    Targets,
    box_iou,
    corners,
    detect_loss,
    generalized_iou,
    match_boxes,
    sigmoid_focal,
)
from ptft.model.detector import PlaceAnswers

PLACES, QUERIES = 6, 4


def made(seed: int, boxes: int) -> tuple[PlaceAnswers, Targets]:
    """A picture's answers and what is right, in float64."""
    rng = np.random.default_rng(seed)

    def drawn(count: int) -> Tensor:
        centre = rng.uniform(0.2, 0.8, (count, 2))
        size = rng.uniform(0.05, 0.4, (count, 2))
        return torch.from_numpy(np.concatenate([centre, size], axis=1))

    found = PlaceAnswers(torch.from_numpy(rng.normal(size=(PLACES, QUERIES)) * 2), drawn(PLACES))
    labels = torch.from_numpy(rng.integers(0, QUERIES, boxes))
    asked = torch.ones(QUERIES, dtype=torch.bool)
    none = torch.zeros(0, dtype=torch.int64)
    return found, Targets(drawn(boxes), labels, asked, torch.zeros(0, 4).double(), none)


def edges(box: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def giou_by_hand(one: list[float], other: list[float]) -> float:
    a, b = edges(one), edges(other)
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = across * down
    union = one[2] * one[3] + other[2] * other[3] - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union - (hull - union) / hull


def focal_by_hand(logit: float, right: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    if right:
        return -0.3 * (1 - p) ** 2 * math.log(p)
    return -0.7 * p**2 * math.log(1 - p)


def cost_by_hand(found: PlaceAnswers, target: Targets, place: int, box: int) -> float:
    logit = float(found.logits[place, target.labels[box]])
    p = 1 / (1 + math.exp(-logit))
    by_class = -0.3 * (1 - p) ** 2 * math.log(p) + 0.7 * p**2 * math.log(1 - p)
    own, wanted = found.boxes[place].tolist(), target.boxes[box].tolist()
    l1 = sum(abs(a - b) for a, b in zip(own, wanted, strict=True))
    return by_class + l1 - giou_by_hand(own, wanted)


@pytest.mark.parametrize("seed", range(4))
def test_the_assignment_is_the_best_of_all(seed: int) -> None:
    found, target = made(seed, boxes=3)
    best = min(
        itertools.permutations(range(PLACES), 3),
        key=lambda places: sum(cost_by_hand(found, target, p, t) for t, p in enumerate(places)),
    )
    [(places, which)] = match_boxes(found.logits[None], found.boxes[None], [target])
    assert dict(zip(which.tolist(), places.tolist(), strict=True)) == dict(enumerate(best))


@pytest.mark.parametrize("seed", range(3))
def test_several_places_for_each_box_are_the_best_of_all(seed: int) -> None:
    found, target = made(seed, boxes=2)
    best = min(
        itertools.permutations(range(PLACES), 4),
        key=lambda places: sum(
            cost_by_hand(found, target, p, n // 2) for n, p in enumerate(places)
        ),
    )
    [(places, which)] = match_boxes(found.logits[None], found.boxes[None], [target], places=2)
    told = {t: set(places[which == t].tolist()) for t in (0, 1)}
    assert told == {0: set(best[:2]), 1: set(best[2:])}


def test_where_places_are_few_every_box_has_as_many() -> None:
    found, target = made(0, boxes=2)  # six places
    for wanted, boxes in ((4, 3), (9, 3), (3, 3), (1, 1)):
        [(places, which)] = match_boxes(
            found.logits[None], found.boxes[None], [target], places=wanted
        )
        assert np.bincount(which.numpy()).tolist() == [boxes, boxes]
        assert len(set(places.tolist())) == 2 * boxes


def test_places_of_one_box_weigh_as_much_as_one_would() -> None:
    """Answers that are alike at all places of a thing: the loss of its boxes is that of one."""
    found, target = made(2, boxes=1)
    alike = PlaceAnswers(
        found.logits[:1].expand(PLACES, -1)[None], found.boxes[:1].expand(PLACES, -1)[None]
    )
    float32 = Targets(
        target.boxes.float(),
        target.labels,
        target.asked,
        target.crowds.float(),
        target.crowd_labels,
    )
    parts = [detect_loss(alike, [float32], places=count)[1] for count in (1, 3)]
    for name in ("l1", "giou"):
        assert float(parts[0][name]) == pytest.approx(float(parts[1][name]), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_a_loop_by_hand(seed: int) -> None:
    batch = [made(10 * seed + n, boxes=n) for n in (0, 1, 3)]
    wanted = np.zeros(3)
    for found, target in batch:
        [(places, which)] = match_boxes(found.logits[None], found.boxes[None], [target])
        given = {(int(p), int(target.labels[t])) for p, t in zip(places, which, strict=True)}
        by_class = sum(
            focal_by_hand(float(found.logits[n, q]), (n, q) in given)
            for n in range(PLACES)
            for q in range(QUERIES)
        )
        l1 = giou = 0.0
        for p, t in zip(places.tolist(), which.tolist(), strict=True):
            own, right = found.boxes[p].tolist(), target.boxes[t].tolist()
            l1 += sum(abs(a - b) for a, b in zip(own, right, strict=True))
            giou += 1 - giou_by_hand(own, right)
        wanted += np.array([by_class, l1, giou]) / max(1, len(target.boxes)) / len(batch)
    logits = torch.stack([found.logits for found, _ in batch])
    boxes = torch.stack([found.boxes for found, _ in batch])
    targets = [
        Targets(t.boxes.float(), t.labels, t.asked, t.crowds.float(), t.crowd_labels)
        for _, t in batch
    ]
    loss, parts = detect_loss(PlaceAnswers(logits, boxes), targets, weights=(1.0, 2.0, 3.0))
    told = np.array([float(parts[name]) for name in ("class", "l1", "giou")])
    assert np.abs(told - wanted).max() < 1e-5
    assert abs(float(loss) - wanted @ [1.0, 2.0, 3.0]) < 1e-5


def test_pictures_do_not_meet_in_the_loss() -> None:
    """So that micro batches and ranks may be averaged."""
    batch = [made(n, boxes=2) for n in range(4)]

    def loss(part: list[tuple[PlaceAnswers, Targets]]) -> float:
        logits = torch.stack([found.logits for found, _ in part])
        boxes = torch.stack([found.boxes for found, _ in part])
        return float(detect_loss(PlaceAnswers(logits, boxes), [target for _, target in part])[0])

    assert abs(loss(batch) - (loss(batch[:2]) + loss(batch[2:])) / 2) < 1e-6


def test_what_a_picture_was_not_annotated_for_moves_nothing() -> None:
    found, target = made(3, boxes=2)
    asked = torch.ones(QUERIES, dtype=torch.bool)
    silent = next(q for q in range(QUERIES) if q not in target.labels.tolist())
    asked[silent] = False
    logits = found.logits[None].float().requires_grad_()
    federated = Targets(
        target.boxes.float(), target.labels, asked, target.crowds.float(), target.crowd_labels
    )
    detect_loss(PlaceAnswers(logits, found.boxes[None]), [federated])[0].backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, silent].any()
    assert bool((logits.grad[0, :, target.labels[0]] != 0).all())


def test_a_crowd_is_neither_right_nor_wrong() -> None:
    found, target = made(5, boxes=1)
    label = int(target.labels[0])
    [(places, _)] = match_boxes(found.logits[None], found.boxes[None], [target])
    whole = torch.tensor([[0.5, 0.5, 1.0, 1.0]])  # everything lies in it
    crowded = Targets(
        target.boxes.float(), target.labels, target.asked, whole, torch.tensor([label])
    )
    logits = found.logits[None].float().requires_grad_()
    detect_loss(PlaceAnswers(logits, found.boxes[None]), [crowded])[0].backward()
    assert logits.grad is not None
    moved = logits.grad[0, :, label] != 0
    assert moved.nonzero()[:, 0].tolist() == places.tolist()


def test_more_boxes_than_places_leave_some_without() -> None:
    found, target = made(1, boxes=PLACES + 3)
    [(places, which)] = match_boxes(found.logits[None], found.boxes[None], [target])
    assert sorted(places.tolist()) == list(range(PLACES))
    assert len(set(which.tolist())) == PLACES


def test_overlaps_of_known_boxes() -> None:
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    others = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    assert box_iou(one, others)[0].tolist() == pytest.approx([1 / 7, 1.0, 0.0])
    assert generalized_iou(one, others)[0].tolist() == pytest.approx([1 / 7 - 2 / 9, 1.0, -1 / 3])
    assert corners(torch.tensor([1.0, 2.0, 2.0, 4.0])).tolist() == [0.0, 0.0, 2.0, 4.0]
    nothing = torch.zeros(1, 4)
    assert float(box_iou(nothing, nothing)) == 0.0
    assert math.isfinite(float(generalized_iou(nothing, nothing)))


def test_sure_logits_lose_nothing_and_overflow_nowhere() -> None:
    logits = torch.tensor([80.0, -80.0, 80.0, -80.0], requires_grad=True)
    wanted = torch.tensor([1.0, 0.0, 0.0, 1.0])
    lost = sigmoid_focal(logits, wanted)
    lost.sum().backward()
    assert lost.tolist() == pytest.approx([0.0, 0.0, 0.7 * 80, 0.3 * 80])
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
