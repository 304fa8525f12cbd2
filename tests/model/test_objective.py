"""Losses against open_clip's own and against loops in float64 written out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ptft.objective import clamp_logit_scale, clip_loss, siglip_loss
from ptft.recipe import ClipObjective

N, D = 6, 5


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, N, D, generator=generator)
    return F.normalize(image, dim=1), F.normalize(text, dim=1)


def similarities(image: torch.Tensor, text: torch.Tensor) -> list[list[float]]:
    return [
        [sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in text.double()]
        for x in image.double()
    ]


def clip_by_hand(
    image: torch.Tensor, text: torch.Tensor, scale: float, captions: list[str]
) -> float:
    """InfoNCE both ways in plain Python: each pair of a caption against those of other captions."""
    cosine, total = similarities(image, text), 0.0
    for query in range(N):
        same = [other for other in range(N) if captions[other] == captions[query]]
        for row in (
            [math.exp(scale * cosine[query][other]) for other in range(N)],
            [math.exp(scale * cosine[other][query]) for other in range(N)],
        ):
            negatives = sum(row[other] for other in range(N) if other not in same)
            terms = [-math.log(row[other] / (row[other] + negatives)) for other in same]
            total += sum(terms) / len(terms) / 2
    return total / N


def siglip_by_hand(
    image: torch.Tensor, text: torch.Tensor, scale: float, bias: float, captions: list[str]
) -> float:
    cosine, total = similarities(image, text), 0.0
    for i in range(N):
        for j in range(N):
            sign = 1.0 if captions[i] == captions[j] else -1.0
            total += math.log1p(math.exp(-sign * (scale * cosine[i][j] + bias)))
    return total / N


def test_a_batch_of_one_caption_has_nothing_to_tell_apart(
    features: tuple[torch.Tensor, torch.Tensor],
) -> None:
    image = features[0].clone().requires_grad_()
    loss = clip_loss(image, features[1], torch.tensor([14.0]), caption_ids=torch.zeros(N))
    loss.backward()
    assert loss.item() == 0.0
    assert image.grad is not None
    assert torch.equal(image.grad, torch.zeros_like(image))


@pytest.mark.parametrize("captions", ["abcdef", "abcabc", "aabbbc", "aaaaaa"])
def test_losses_equal_loops_in_float64(
    features: tuple[torch.Tensor, torch.Tensor], captions: str
) -> None:
    image, text = features
    ids = torch.tensor([ord(letter) for letter in captions])
    scale, bias = torch.tensor([14.0]), torch.tensor([-3.0])
    assert clip_loss(image, text, scale, caption_ids=ids).item() == pytest.approx(
        clip_by_hand(image, text, 14.0, list(captions)), rel=1e-6
    )
    assert siglip_loss(image, text, scale, bias, caption_ids=ids).item() == pytest.approx(
        siglip_by_hand(image, text, 14.0, -3.0, list(captions)), rel=1e-6
    )


@pytest.mark.parametrize("with_ids", [False, True])
def test_losses_and_gradients_equal_open_clips_where_no_caption_repeats(
    features: tuple[torch.Tensor, torch.Tensor], with_ids: bool
) -> None:
    from open_clip.loss import ClipLoss, SigLipLoss

    ids = torch.arange(N) if with_ids else None

    def leaves() -> tuple[torch.Tensor, ...]:
        image, text = features
        values = (image, text, torch.tensor([14.0]), torch.tensor([-3.0]))
        return tuple(value.clone().requires_grad_() for value in values)

    ours, theirs = leaves(), leaves()
    loss = clip_loss(*ours[:3], caption_ids=ids)
    reference = ClipLoss()(theirs[0], theirs[1], theirs[2])
    _same(loss, reference, ours[:3], theirs[:3])

    ours, theirs = leaves(), leaves()
    loss = siglip_loss(*ours, caption_ids=ids)
    reference = SigLipLoss()(theirs[0], theirs[1], theirs[2], logit_bias=theirs[3])
    _same(loss, reference, ours, theirs)


def _same(
    loss: torch.Tensor,
    reference: torch.Tensor,
    ours: tuple[torch.Tensor, ...],
    theirs: tuple[torch.Tensor, ...],
) -> None:
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=1e-6)
    loss.backward()
    reference.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_a_repeated_caption_pulls_both_pictures(
    features: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Rows 0 and 1 share a caption: without the ids each pushes the other's text away."""
    image, text = features
    text = text.clone()
    text[1] = text[0]
    ids = torch.tensor([7, 7, 2, 3, 4, 5])

    def pull(caption_ids: torch.Tensor | None) -> float:
        mine = image.clone().requires_grad_()
        clip_loss(mine, text, torch.tensor([10.0]), caption_ids=caption_ids).backward()
        assert mine.grad is not None
        return -(mine.grad[0] @ text[0]).item()

    assert pull(ids) > pull(None)


def test_half_precision_features_give_a_float32_loss(
    features: tuple[torch.Tensor, torch.Tensor],
) -> None:
    image, text = (value.bfloat16() for value in features)
    loss = clip_loss(image, text, torch.tensor([14.0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(clip_by_hand(image, text, 14.0, list("abcdef")), rel=1e-5)


def test_logit_scale_is_clamped_both_ways() -> None:
    model = SimpleNamespace(logit_scale=torch.nn.Parameter(torch.tensor([7.0])))
    clamp_logit_scale(ClipObjective(), model)  # type: ignore[arg-type]
    assert model.logit_scale.exp().item() == pytest.approx(100.0)
    model.logit_scale.data.fill_(-2.0)
    clamp_logit_scale(ClipObjective(), model)  # type: ignore[arg-type]
    assert model.logit_scale.exp().item() == 1.0
