"""Tiled losses against the plain ones: loss and every gradient."""

import pytest
import torch
import torch.nn.functional as F

from ptft import objective, tiled

N, D = 13, 6


def leaves(captions: str) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, N, D, generator=generator, dtype=torch.float64)
    scale, bias = torch.tensor([[14.0], [-3.0]], dtype=torch.float64)
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
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_equal_to_the_plain_loss(
    monkeypatch: pytest.MonkeyPatch, rows: int, captions: str, kind: str
) -> None:
    double(monkeypatch)
    monkeypatch.setattr(tiled, "TILE", rows * N)
    ours, ids = leaves(captions)
    theirs, _ = leaves(captions)
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
