"""Rare classes that count more, and samples that are sure and count less: by a loop in float64."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from ptft.distributed import ALONE
from ptft.errors import RecipeError
from ptft.objective import classify_loss
from ptft.recipe import ClassifyObjective, Recipe, deciding_values
from ptft.train.class_weights import class_weights
from ptft.train.gradients import Step
from ptft.train.parallel import share
from ptft.train.setup import set_up
from tests.support import steps
from tests.support.runs import recipe, run

CLASSES = ["a", "b", "c"]


def by_hand(section: ClassifyObjective, logits: Any, labels: Any, weights: list[float]) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        whole = sum(math.exp(one) for one in row)
        logs = [one - math.log(whole) for one in row]
        even = section.label_smoothing / len(row)
        target = [even + (1 - section.label_smoothing) * (c == label) for c in range(len(row))]
        loss = -sum(t * one for t, one in zip(target, logs, strict=True))
        total += weights[label] * (1 - math.exp(logs[label])) ** section.focal * loss
    return total / len(logits)


@pytest.mark.parametrize("focal", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_a_loop_by_hand(focal: float, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 0, 0, 2])
    section = ClassifyObjective(focal=focal, label_smoothing=smoothing)
    for weights in ([1.0, 1.0, 1.0], [0.2, 3.0, 1.0]):
        given = torch.tensor(weights, dtype=torch.float64)
        found = classify_loss(section, logits, labels, torch.zeros(1), given).loss.item()
        expected = by_hand(section, logits.tolist(), labels.tolist(), weights)
        assert found == pytest.approx(expected, abs=1e-12)
    plain = classify_loss(section, logits, labels, torch.zeros(1)).loss.item()
    assert plain == pytest.approx(by_hand(section, logits.tolist(), labels.tolist(), [1.0] * 3))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_sample_that_is_as_sure_as_can_be_has_a_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    section = ClassifyObjective(focal=gamma)
    loss = classify_loss(section, logits, torch.tensor([0, 0]), torch.zeros(1)).loss
    loss.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_balanced_weights_are_scikit_learns_and_one_on_average() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2] * 4 + [-1] * 3)
    section = ClassifyObjective(class_weights="balanced")
    found = class_weights(section, CLASSES, np.bincount(labels[labels >= 0]))
    assert found is not None
    known = labels[labels >= 0]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=known)
    assert found.tolist() == pytest.approx(expected.tolist())
    assert found[torch.from_numpy(known)].mean() == pytest.approx(1.0)


def test_weights_by_name_and_what_is_refused() -> None:
    assert class_weights(ClassifyObjective(), CLASSES, None) is None
    named = ClassifyObjective(class_weights={"c": 4.0})
    found = class_weights(named, CLASSES, None)
    assert found is not None and found.tolist() == [1.0, 1.0, 4.0]
    with pytest.raises(RecipeError, match=r"class_weights: 'cc': did you mean 'c'"):
        class_weights(ClassifyObjective(class_weights={"cc": 1.0}), CLASSES, None)
    with pytest.raises(RecipeError, match="cannot be read without its pictures"):
        class_weights(ClassifyObjective(class_weights="balanced"), CLASSES, None)


@pytest.mark.parametrize("micro", [None, 2])
def test_micro_batches_add_up(micro: int | None) -> None:
    objective = {"kind": "classify", "focal": 1.5}
    section = steps.recipe(objective=objective, optim__micro_batch=micro)
    model = steps.learner(section)
    data = steps.batch(model)
    assert model.head is not None and data.labels is not None
    weights = torch.linspace(0.5, 2.0, len(model.spec.classes), dtype=torch.float64)
    output = Step(section.objective, section.optim, share(model, ALONE), class_weights=weights)(
        data
    )
    found = steps.gradients(model)
    model.zero_grad(set_to_none=True)
    logits, _ = model(model.normalise(data.images), None, logits=True)
    assert isinstance(section.objective, ClassifyObjective)
    whole = classify_loss(section.objective, logits, data.labels, model.logit_scale, weights)
    whole.loss.backward()
    assert output.loss.item() == pytest.approx(whole.loss.item(), abs=1e-12)
    wanted = steps.gradients(model)
    assert max((found[name] - wanted[name]).abs().max().item() for name in wanted) < 1e-12


def weighted(folder: Path, **changes: Any) -> Recipe:
    return recipe(folder, objective__kind="classify", optim__samples_seen=32, **changes)


def test_a_run_takes_the_weights_of_its_own_data(tmp_path: Path) -> None:
    section = weighted(tmp_path, objective__class_weights="balanced", data__train=20)
    setup = set_up(section, torch.device("cpu"))
    labels = setup.samples.labels()
    assert setup.class_weights is not None and labels is not None
    counts = np.bincount(labels, minlength=len(setup.samples.classes or ()))
    shown = counts > 0
    expected = len(labels) / (len(counts) * counts[shown])
    assert setup.class_weights.numpy()[shown] == pytest.approx(expected)
    for name, more in (("plain", {}), ("focal", {"objective__focal": 2.0})):
        run(tmp_path / name, objective__kind="classify", optim__samples_seen=16, **more)
    first, second = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("plain", "focal"))
    assert first != second


def test_what_was_not_there_before_leaves_digests_as_they_were(tmp_path: Path) -> None:
    plain = deciding_values(weighted(tmp_path))["objective"]
    assert not {"class_weights", "focal"} & plain.keys()
    both = weighted(tmp_path, objective__class_weights={"x": 2.0}, objective__focal=1.0)
    assert {"class_weights", "focal"} <= deciding_values(both)["objective"].keys()


def test_two_ways_to_balance_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    data = {"kind": "folder", "train": str(tmp_path / "x"), "resample": "class"}
    with pytest.raises(RecipeError, match="draws rare classes more often already"):
        weighted(tmp_path, objective__class_weights="balanced", data=data)
