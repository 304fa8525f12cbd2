"""Tiled losses against the plain ones: loss and every gradient."""

import pytest
import torch
import torch.nn.functional as F

from ptft import objective, tiled

N, D = 13, 6


def leaves(captions: str, size: float = 14.0) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, N, D, generator=generator, dtype=torch.float64)
    scale, bias = torch.tensor([[size], [-3.0]], dtype=torch.float64)
    values = [F.normalize(image, dim=1), F.normalize(text, dim=1), scale, bias]
    ids = torch.tensor([ord(letter) for letter in captions]) if captions else None
    return [value.requires_grad_() for value in values], ids


def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plain losses stay in float64, so that the two can be told apart below 1e-7."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)


@pytest.mark.parametrize("rows", [1, 4, 13, 100])
@pytest.mark.parametrize(
    "captions", ["", "abcdefghijklm", "abcabcabcabca", "aabbbcdefghij", "a" * N]
)
@pytest.mark.parametrize("size", [14.0, 400.0])  # one exponential for both directions, or each
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_equal_to_the_plain_loss(
    monkeypatch: pytest.MonkeyPatch, rows: int, captions: str, kind: str, size: float
) -> None:
    double(monkeypatch)
    monkeypatch.setattr(tiled, "TILE", rows * N)
    ours, ids = leaves(captions, size)
    theirs, _ = leaves(captions, size)
    if kind == "clip":
        ours, theirs = ours[:3], theirs[:3]
        loss = tiled.tiled_clip_loss(*ours, ids)
        plain = objective.clip_loss(*theirs, caption_ids=ids)
    else:
        loss = tiled.tiled_siglip_loss(*ours, ids)
        plain = objective.siglip_loss(*theirs, caption_ids=ids)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    (3.0 * loss).backward()
    (3.0 * plain).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("below", [0.0, 0.7, 1.9], ids=["near", "apart", "far apart"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_float32_loses_nothing_at_clips_largest_scale(kind: str, below: float) -> None:
    """One image, and one text, lies this much further from all others in cosine."""
    angles = torch.linspace(0.0, 0.3, 40, dtype=torch.float64)
    image, text = (torch.stack([angles.cos(), angles.sin()], dim=1) for _ in range(2))
    turned = torch.tensor(1.0 - below, dtype=torch.float64).arccos()
    image[7], text[30] = (torch.stack([way.cos(), way.sin()]) for way in (turned, -turned))
    values = [image, text, torch.tensor([100.0]).double(), torch.tensor([-10.0]).double()]
    values = values[: 3 if kind == "clip" else 4]
    exact = [value.clone().requires_grad_() for value in values]
    single = [value.float().requires_grad_() for value in values]
    loss = {"clip": tiled.tiled_clip_loss, "siglip": tiled.tiled_siglip_loss}[kind]
    losses = loss(*exact), loss(*single)
    by_hand = [value.clone().requires_grad_() for value in values]
    wanted = _by_hand(*by_hand)
    torch.testing.assert_close(losses[0], wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses[1].double(), wanted, rtol=2e-5, atol=1e-6)
    for value in (*losses, wanted):
        value.backward()
    for one, two, three in zip(exact, single, by_hand, strict=True):
        assert one.grad is not None and two.grad is not None and three.grad is not None
        torch.testing.assert_close(one.grad, three.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(two.grad.double(), three.grad, rtol=2e-4, atol=2e-5)


def _by_hand(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Both losses written out in float64, as autograd differentiates them."""
    logits = scale * image @ text.T
    if bias is None:
        own = torch.arange(len(image))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    signs = 2 * torch.eye(len(image), dtype=torch.float64) - 1
    return -F.logsigmoid(signs * (logits + bias)).sum() / len(image)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_large_batch_takes_the_tiled_loss(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(objective, "TILED_FROM", N)
    values, ids = leaves("abcabcabcabca")
    single = [value.detach().float().requires_grad_() for value in values]
    if kind == "clip":
        loss = objective.clip_loss(*single[:3], caption_ids=ids)
    else:
        loss = objective.siglip_loss(*single, caption_ids=ids)
    assert type(loss.grad_fn).__name__ == f"_{kind.capitalize()}Backward"
    loss.backward()
    assert all(value.grad is not None for value in single[:3])


def test_a_second_backward_is_refused() -> None:
    values, ids = leaves("")
    loss = tiled.tiled_clip_loss(*values[:3], ids)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="runs backward once"):
        loss.backward()
