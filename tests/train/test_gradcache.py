"""Micro batches: the gradients are the whole batch's, whatever the loss, precision and dropout."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ptft import objective
from ptft.distributed import ALONE
from ptft.errors import RecipeError
from ptft.model import DualEncoder
from ptft.recipe import Recipe
from ptft.train import gradients as step_module
from ptft.train import predict_memory
from ptft.train.device import RandomState
from ptft.train.gradients import Step
from ptft.train.parallel import share
from tests.support.plain_step import compute_objective, to_device
from tests.support.runs import recipe as tiny_run
from tests.support.steps import batch, gradients, largest_gap, learner, recipe

OBJECTIVES: dict[str, dict[str, Any]] = {
    "clip": {"objective__kind": "clip"},
    "clip-single-positive": {"objective__kind": "clip", "objective__multi_positive": False},
    "siglip": {"objective__kind": "siglip"},
    "classify": {"objective__kind": "classify", "objective__label_smoothing": 0.1},
}


def take(
    section: Recipe, model: DualEncoder, scaler: torch.amp.GradScaler | None = None
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one step by :class:`Step`."""
    model.zero_grad(set_to_none=True)
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    output = Step(section.objective, section.optim, share(model, ALONE), scaler=scaler)(
        batch(model)
    )
    return output.loss.item(), gradients(model)


def whole(section: Recipe, model: DualEncoder) -> tuple[float, dict[str, torch.Tensor]]:
    """The same by autograd through the towers and the loss at once."""
    model.zero_grad(set_to_none=True)
    loss = compute_objective(
        section.objective, model, to_device(batch(model), model, section.objective)
    ).loss
    loss.backward()
    return loss.item(), gradients(model)


@pytest.mark.parametrize("micro", [None, 1, 3, 4])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_gradients_are_the_whole_batchs(kind: str, micro: int | None) -> None:
    section = recipe(optim__micro_batch=micro, **OBJECTIVES[kind])
    model = learner(section)
    loss, found = take(section, model)
    reference, expected = whole(section, model)
    assert "logit_scale" in found
    assert loss == pytest.approx(reference, abs=1e-12)
    assert largest_gap(found, expected) < 1e-12


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_gradients_in_float32_agree_too(kind: str) -> None:
    section = recipe(optim__micro_batch=3, **OBJECTIVES[kind])
    model = learner(section, double=False)
    expected = whole(section, model)[1]
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    assert largest_gap(take(section, model)[1], expected) < 1e-5 * largest


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_tiled_loss_goes_with_it(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    section = recipe(optim__micro_batch=4, **OBJECTIVES[kind])
    model = learner(section)
    _, expected = whole(section, model)
    monkeypatch.setattr(objective, "TILED_FROM", 2)
    assert largest_gap(take(section, model)[1], expected) < 1e-12


def test_a_tower_whose_text_is_not_trimmed_and_a_locked_one() -> None:
    section = recipe(objective__kind="siglip", optim__micro_batch=4, adapt__lock=["text"])
    model = learner(section, "tiny-siglip")
    _, found = take(section, model)
    assert not any(name.startswith("text.transformer") for name in found)
    assert largest_gap(found, whole(section, model)[1]) < 1e-12


def test_a_tower_that_learns_nothing_is_not_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    section = recipe(optim__micro_batch=4)
    model = learner(section)
    model.image.requires_grad_(False)
    model.lock(["image"])
    seen: list[bool] = []
    plain = model.encode_image

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return plain(images)

    monkeypatch.setattr(model, "encode_image", encode)
    _, found = take(section, model)
    assert seen == [False, False, True]  # of the last the graph stays, of which this has none
    assert largest_gap(found, whole(section, model)[1]) < 1e-12


def with_dropout(model: DualEncoder) -> DualEncoder:
    """Patch dropout in the image tower, dropout after each block of the text tower."""
    from open_clip.transformer import PatchDropout

    model.image.patch_dropout = PatchDropout(0.5)
    blocks = model.text.transformer.resblocks
    for block in blocks:
        block.mlp.append(torch.nn.Dropout(0.3))
    return model.train()


def test_both_passes_draw_the_same_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against one graph of all micro batches, which draws once; lost without the replay."""
    section = recipe(optim__micro_batch=4)
    model = with_dropout(learner(section))
    torch.manual_seed(7)
    _, found = take(section, model)
    after = torch.get_rng_state()

    torch.manual_seed(7)
    model.zero_grad(set_to_none=True)
    step = Step(section.objective, section.optim, share(model, ALONE))
    data = batch(model)
    micros = step._cut(data)
    encoded = [step._encode(data, micro) for micro in micros]
    assert torch.equal(torch.get_rng_state(), after), "the second pass leaves no trace"
    order = torch.cat([micro.texts for micro in micros]).argsort()
    objective.clip_loss(
        torch.cat([image for image, _ in encoded]),
        torch.cat([text for _, text in encoded])[order],
        model.logit_scale.exp(),
        caption_ids=data.caption_ids,
    ).backward()
    expected = gradients(model)
    assert largest_gap(found, expected) < 1e-12

    monkeypatch.setattr(RandomState, "restore", lambda self, device: None)
    torch.manual_seed(7)
    assert largest_gap(take(section, model)[1], expected) > 1e-6


def test_half_precision_and_a_scaled_loss() -> None:
    """Micro batches in fp16 with the loss scaled, against the whole batch in the same format."""
    section = recipe(optim__micro_batch=3, optim__precision="fp16")
    at_once = recipe(optim__precision="fp16")
    model = learner(section, double=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    _, found = take(section, model, scaler)
    _, expected = take(at_once, model)
    gap = largest_gap({name: value / 256.0 for name, value in found.items()}, expected)
    largest = max(value.abs().max().item() for value in expected.values())
    assert gap < 5e-3 * largest  # of fp16's own rounding, 1e-3


def test_short_texts_share_micro_batches() -> None:
    section = recipe(optim__micro_batch=4)
    model = learner(section)
    data = batch(model)
    micros = Step(section.objective, section.optim, share(model, ALONE))._cut(data)
    lengths = model.spec.tokenizer.lengths(data.tokens.numpy())
    longest = [int(lengths[micro.texts].max()) for micro in micros]
    assert longest == sorted(longest)
    assert longest[0] < longest[-1]
    assert sorted(torch.cat([micro.texts for micro in micros]).tolist()) == list(range(12))


def test_a_batch_norm_refuses_micro_batches_unless_it_is_frozen() -> None:
    with pytest.raises(RecipeError, match=r"optim\.micro_batch: 4: image\.bn1 is a batch norm"):
        take(recipe(optim__micro_batch=4), learner(recipe(), "tiny-resnet"))
    for adapt in ({"adapt__freeze_norm": True}, {"adapt__lock": ["image"]}):
        section = recipe(optim__micro_batch=4, **adapt)
        model = learner(section, "tiny-resnet")
        assert largest_gap(take(section, model)[1], whole(section, model)[1]) < 1e-12


def test_a_micro_batch_divides_the_ranks_share() -> None:
    with pytest.raises(RecipeError, match="micro_batch 5 does not divide global_batch 12"):
        recipe(optim__micro_batch=5)
    section = recipe(optim__micro_batch=4)
    with pytest.raises(RecipeError, match=r"4: does not divide a rank's 6 samples .* over 2 ranks"):
        step_module.micro_batch(section.optim, learner(section), 2)


def test_predicted_memory_is_that_of_a_micro_batch() -> None:
    def predicted(**changes: Any) -> float:
        size = {"optim__global_batch": 1024, "optim__samples_seen": 1024}
        found = predict_memory(tiny_run(Path("nowhere"), **size, **changes))
        return found["gib"]["activations"]

    full, part = predicted(), predicted(optim__micro_batch=64)
    assert part < full / 5  # the loss of all 1,024 pairs remains
