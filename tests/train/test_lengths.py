"""Texts of like length together: the cheapest cut, and the same gradients."""

from itertools import combinations

import numpy as np
import pytest
import torch

from ptft.data import KeptFeatures
from ptft.distributed import ALONE
from ptft.train import batches as batches_module
from ptft.train.batches import cut_by_length, grouped_tokens
from ptft.train.gradients import Step
from ptft.train.parallel import share
from tests.support.steps import batch, gradients, largest_gap, learner, recipe


def cost(lengths: np.ndarray, cuts: list[slice], group: int) -> int:
    return sum(group + (cut.stop - cut.start) * int(lengths[cut.stop - 1]) for cut in cuts)


@pytest.mark.parametrize("group", [0, 3, 10, 1000])
def test_no_other_cut_is_cheaper(group: int) -> None:
    rng = np.random.default_rng(group)
    for count in range(1, 9):
        lengths = np.sort(rng.integers(1, 20, count))
        cuts = cut_by_length(lengths, group)
        assert [index for cut in cuts for index in range(count)[cut]] == list(range(count))
        every = [
            [slice(a, b) for a, b in zip((0, *inner), (*inner, count), strict=True)]
            for size in range(count)
            for inner in combinations(range(1, count), size)
        ]
        assert cost(lengths, cuts, group) == min(cost(lengths, cut, group) for cut in every)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("micro", [None, 6])
def test_groups_give_the_gradients_of_the_padded_batch(
    micro: int | None, double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = recipe(optim__micro_batch=micro)
    model = learner(section, double=double)
    found = []
    for group in (10_000, 0):
        monkeypatch.setitem(batches_module.GROUP_COST, "cpu", group)
        monkeypatch.setattr(batches_module, "packs_texts", lambda tower: False)
        model.zero_grad(set_to_none=True)
        step = Step(section.objective, section.optim, share(model, ALONE))
        loss = step(batch(model)).loss
        found.append({"loss": loss, **gradients(model)})
    largest = max(float(value.abs().max()) for value in found[0].values())
    assert largest_gap(*found) < (1e-12 if double else 4e-6) * largest  # float32: 32 roundings


def test_short_texts_are_trimmed_apart_from_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batches_module.GROUP_COST, "cpu", 10)
    model = learner(recipe())
    model.text.eval()  # in training it leaves padding out by itself
    texts = ["a"] * 30 + ["a small green star under a large yellow moon"] * 2
    tokens = torch.from_numpy(model.spec.tokenizer(texts))
    groups = grouped_tokens(tokens, model)
    assert [tuple(group.shape) for group in groups] == [(30, 3), (2, 11)]
    assert torch.equal(groups[1], tokens[30:, :11])
    monkeypatch.setitem(batches_module.GROUP_COST, "cpu", 10_000)
    assert [tuple(group.shape) for group in grouped_tokens(tokens, model)] == [(32, 11)]


def test_where_padding_matters_there_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batches_module.GROUP_COST, "cpu", 0)
    model = learner(recipe(objective__kind="siglip"), "tiny-siglip", double=False)
    tokens = torch.from_numpy(model.spec.tokenizer(["a", "a photo of a cat"]))
    assert [group.shape[1] for group in grouped_tokens(tokens, model)] == [model.context_length]
    kept = KeptFeatures(torch.zeros(4, 8))
    (given,) = grouped_tokens(kept, model)
    assert isinstance(given, KeptFeatures) and torch.equal(given.rows, kept.rows)
