"""Cost, memory and exactness of a batch that is twelve times what fits, against plain steps.

ViT-S-32 in float32 on one thread, captions of 8 to 12 tokens, InfoNCE. "Fits" is 8 pairs a step;
the large batch is 96 in micro batches of 8. CPU seconds are those of forward, loss and backward,
which leaves out the optimiser, of which small batches have twelve times as many steps. Memory is
the peak beyond weights, gradients and the uint8 batch, each figure from a process of its own.
open_clip is its ``--accum-freq 12`` on the same batch.
"""

import resource
import time
from dataclasses import dataclass
from typing import Any

from tests.bench._parts import apart

RUNS = ("fits", "gradcache", "whole", "open_clip")
WORDS = (
    *("red", "blue", "small", "large", "round", "circle", "square", "star"),
    *("left", "right", "above", "photo", "drawing", "line"),
)


@dataclass(frozen=True)
class _Size:
    """Pairs that fit, how many times as many the large batch has, and rounds."""

    fits: int = 8
    times: int = 12
    rounds: int = 3

    def pairs(self, which: str) -> int:
        return self.fits if which == "fits" else self.fits * self.times


def _batch(model: Any, pairs: int) -> Any:
    import torch

    from ptft.data import Batch

    generator = torch.Generator().manual_seed(0)
    size = (pairs, *model.spec.preprocess.size, 3)
    texts = []
    for number in range(pairs):
        picks = torch.randint(len(WORDS), (5 + number % 5,), generator=generator).tolist()
        texts.append(" ".join([*(WORDS[pick] for pick in picks), str(number % 10)]))
    return Batch(
        images=torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
        tokens=torch.from_numpy(model.spec.tokenizer(texts)),
        caption_ids=torch.arange(pairs),
        labels=None,
        names=texts,
        skipped=[],
    )


def _step(which: str, size: _Size) -> tuple[Any, Any, Any]:
    """The model, the batch, and what runs forward, loss and backward of it."""
    import torch

    from ptft.distributed import ALONE
    from ptft.model import build_model
    from ptft.recipe import ArchModel, ClipObjective
    from ptft.train.gradients import Step
    from ptft.train.parallel import share
    from tests.support.steps import recipe

    torch.set_num_threads(1)
    model = build_model(ArchModel(name="ViT-S-32"), None, ClipObjective(), seed=0).train()
    pairs = size.pairs(which)
    batch = _batch(model, pairs)
    if which == "open_clip":
        return model, batch, lambda: _accumulate(model, batch, size.fits)
    changes = {"optim__micro_batch": size.fits} if which == "gradcache" else {}
    section = recipe(optim__global_batch=pairs, **changes)
    step = Step(section.objective, section.optim, share(model, ALONE))
    return model, batch, lambda: step(batch)


def _accumulate(model: Any, batch: Any, fits: int) -> None:
    """open_clip 3.3's accumulation (``train_one_epoch`` with ``accum_freq``)."""
    import torch
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    parts = [slice(start, start + fits) for start in range(0, len(batch.images), fits)]

    def forward(part: slice) -> Any:
        images = model.normalise(batch.images[part])
        return model(images, batch.tokens[part])

    with torch.no_grad():
        cached = [forward(part) for part in parts]
    for number, part in enumerate(parts):
        pairs = [*cached[:number], forward(part), *cached[number + 1 :]]
        images, texts = (torch.cat(features) for features in zip(*pairs, strict=True))
        loss(images, texts, model.logit_scale.exp()).backward()


def one(which: str, size: _Size) -> dict[str, float]:
    """Measured in this process: CPU-ms a pair (the best step), GB beyond the start."""
    import torch

    model, batch, step = _step(which, size)
    for parameter in model.parameters():  # held by every step but the first of accumulation
        parameter.grad = torch.empty_like(parameter).fill_(0.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(size.times if which == "fits" else 1):
        model.zero_grad(set_to_none=False)
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "cpu_ms": 1000 * min(seconds) / len(batch.images),
        "gb": (peak - before) * 1024 / 1e9,
        "scale_gradient": model.logit_scale.grad.item(),
    }


def difference(size: _Size) -> float:
    """Largest difference of a gradient from the whole batch's, as a share of the largest."""
    gradients = []
    for which in ("gradcache", "whole"):
        model, _, step = _step(which, size)
        step()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    gap = max((a - b).abs().max().item() for a, b in zip(*gradients, strict=True))
    return gap / max(b.abs().max().item() for b in gradients[1])


def run(*, smoke: bool = False) -> dict[str, float]:
    size = _Size(fits=2, times=2, rounds=1) if smoke else _Size()
    found: dict[str, list[dict[str, float]]] = {which: [] for which in RUNS}
    for number in range(size.rounds):
        for which in RUNS if number == 0 else RUNS[:2]:
            found[which].append(apart(one, which, size))
    print("ViT-S-32, one thread, forward + loss + backward, best round")
    print(f"{'':<12}{'pairs':>7}{'CPU-ms a pair':>15}{'GB':>8}{'logit-scale gradient':>23}")
    figures: dict[str, float] = {}
    for which in RUNS:
        cpu, gb = (min(one[key] for one in found[which]) for key in ("cpu_ms", "gb"))
        pairs, scale = size.pairs(which), found[which][0]["scale_gradient"]
        print(f"{which:<12}{pairs:>7}{cpu:>15.1f}{gb:>8.3f}{scale:>23.6f}")
        figures |= {f"{which}_cpu_ms": round(cpu, 2), f"{which}_gb": round(gb, 3)}
        figures[f"{which}_scale_gradient"] = scale
    figures["cost_ratio"] = round(figures["gradcache_cpu_ms"] / figures["fits_cpu_ms"], 3)
    figures["memory_ratio"] = round(figures["gradcache_gb"] / figures["fits_gb"], 3)
    figures["gradient_difference"] = apart(difference, size)
    return figures


BARS = {
    "cost_ratio": ("<=", 1.5),
    "memory_ratio": ("<=", 1.25),
    "gradient_difference": ("<=", 1e-5),
}
