"""Samples a second and peak memory on one GPU, against open_clip_train's step.

Both run bf16 on the same synthetic pictures (already on the GPU) and captions of 77 places, of
which ptft uses the 12 that the longest caption has, as it does in any run. open_clip is driven as
``train_one_epoch`` drives it without accumulation: autocast, ClipLoss, AdamW. One process a model,
in which each step is built anew where the one before has left the GPU empty; a batch that does not
fit is an error that torch raises and this catches.

1. The largest batch (a power of two) that open_clip's step fits; both timed there, in turn.
2. The largest multiple of it, up to 16, that ptft's step fits with that batch as its micro batch
   (GradCache).
3. InfoNCE alone, forward and backward, at 65,536 pairs and twice that.
"""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.bench._parts import Absent

NAMES = ("ViT-B-32", "ViT-B-16")
FIRST, LAST = 256, 65_536  # batches that the search tries
TIMES = (16, 8, 4, 2, 1)  # ptft's batch over open_clip's: memory is flat, so the largest first
STEPS, ROUNDS = 8, 2
PAIRS = (65_536, 131_072)

BARS = {
    "ViT-B-32_speed": (">=", 1.3),
    "ViT-B-16_speed": (">=", 1.3),
    "ViT-B-32_batch": (">=", 8.0),
    "ViT-B-16_batch": (">=", 8.0),
    "clip_65536_gb": ("<=", 2.0),
}


def inputs(size: tuple[int, int], batch: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (B, H, W, 3) and int64 (B, 77): captions of 8 to 12 tokens, marks included."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, *size, 3), dtype=torch.uint8, generator=generator)
    pixels = pixels.to(device).repeat(-(-batch // 64), 1, 1, 1)[:batch]
    tokens = torch.zeros(batch, 77, dtype=torch.int64)
    lengths = torch.randint(8, 13, (batch,), generator=generator)
    words = torch.randint(1_000, 40_000, (batch, 77), generator=generator)
    inside = torch.arange(77)[None, :] < lengths[:, None] - 1
    tokens = torch.where(inside, words, tokens)
    tokens[:, 0] = 49_406
    tokens[torch.arange(batch), lengths - 1] = 49_407
    return pixels, tokens


def ptft_step(name: str, batch: int, micro: int, device: str) -> Callable[[], Any]:
    """ptft's step as a run makes it: blocks compiled on a GPU, GradCache below the whole batch."""
    from ptft.data import Batch
    from ptft.distributed import ALONE
    from ptft.model import build_model
    from ptft.optim import build_optimizer
    from ptft.recipe.load import parse_recipe
    from ptft.train.device import compile_blocks
    from ptft.train.gradients import Step
    from ptft.train.parallel import share

    recipe = parse_recipe(
        {
            "name": "bench",
            "model": {"name": name},
            "data": {"kind": "scenes"},
            "optim": {
                "samples_seen": 1_000_000,
                "global_batch": batch,
                "micro_batch": micro,
                "precision": "bf16" if device == "cuda" else "fp32",
            },
        },
        where="bench",
    )
    model = build_model(recipe.model, None, recipe.objective, seed=0).to(device).train()
    if device == "cuda":
        compile_blocks(model)
    optimizer = build_optimizer(model, recipe.optim)
    step = Step(recipe.objective, recipe.optim, share(model, ALONE))
    pixels, tokens = inputs(model.spec.preprocess.size, batch, device)
    ids = torch.arange(batch)
    whole = Batch(pixels, tokens, ids, None, [str(number) for number in range(batch)], [])
    learning = [p for group in optimizer.param_groups for p in group["params"]]

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        step(whole)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()

    return run


def open_clip_step(name: str, batch: int, device: str) -> Callable[[], Any]:
    """open_clip_train's step without accumulation, precision amp_bf16."""
    from ptft.compat import import_open_clip

    open_clip = import_open_clip()
    model = open_clip.create_model(name, output_dict=True).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    loss_of = open_clip.ClipLoss(cache_labels=True)
    pixels, tokens = inputs(open_clip.get_model_preprocess_cfg(model)["size"], batch, device)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], device=device)[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711], device=device)[:, None, None]
    tokens = tokens.to(device)
    # its loader hands over normalised floats
    images = ((pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous()
    tokens = tokens[:, : model.context_length]

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(**model(images, tokens))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, norm_type=2.0)
        optimizer.step()

    return run


def timed(run: Callable[[], Any], steps: int, device: str) -> dict[str, float]:
    """Seconds a step, one or two that warm up left out; peak of the memory that tensors held."""
    for _ in range(min(steps, 2)):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(steps):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / steps
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"seconds": seconds, "gb": peak / 1e9}


def one(what: str, name: str, batch: int, micro: int, device: str, steps: int) -> dict[str, float]:
    """One measurement: a step built, timed, and gone again."""
    torch.manual_seed(0)
    try:
        if what == "loss":
            return timed(loss_step(batch, device), steps, device)
        if what == "ptft":
            return timed(ptft_step(name, batch, micro, device), steps, device)
        return timed(open_clip_step(name, batch, device), steps, device)
    finally:
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def loss_step(pairs: int, device: str) -> Callable[[], Any]:
    """InfoNCE of random features, D = 512, float32."""
    from ptft.objective import clip_loss

    features = [
        F.normalize(torch.randn(pairs, 512, device=device), dim=1).requires_grad_()
        for _ in range(2)
    ]
    scale = torch.tensor([14.0], device=device, requires_grad=True)
    return lambda: clip_loss(*features, scale).backward()


def fits(what: str, name: str, batch: int, micro: int) -> dict[str, float] | None:
    """One step on the GPU; None where memory did not suffice."""
    try:
        return one(what, name, batch, micro, "cuda", 1)
    except torch.OutOfMemoryError:
        pass  # outside of it, so that nothing holds the frames that hold tensors
    gc.collect()
    torch.cuda.empty_cache()
    return None


def largest(fit: Callable[[int], bool], first: int, last: int) -> int:
    """The largest of ``first`` times a power of two, up to ``last``, that fits; 0 for none."""
    found, batch = 0, first
    while batch <= last and fit(batch):
        found, batch = batch, batch * 2
    return found


def against_open_clip(name: str, *, smoke: bool = False) -> dict[str, float]:
    """Samples/s at open_clip's largest batch, and how much larger ptft's may be."""
    last, multiples = (FIRST, TIMES[-2:]) if smoke else (LAST, TIMES)
    theirs = largest(lambda batch: fits("open_clip", name, batch, batch) is not None, FIRST, last)
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for whose in ("open_clip", "ptft"):
            found = one(whose, name, theirs, theirs, "cuda", STEPS)
            if whose not in best or found["seconds"] < best[whose]["seconds"]:
                best[whose] = found
    for whose, found in best.items():
        show(name, whose, theirs, theirs, found)
    speed = best["open_clip"]["seconds"] / best["ptft"]["seconds"]
    figures = {f"{name}_speed": speed}
    for times in multiples:
        many = fits("ptft", name, times * theirs, theirs)
        if many is not None:
            show(name, "ptft", times * theirs, theirs, many)
            return figures | {f"{name}_batch": float(times), f"{name}_gb": many["gb"]}
    return figures


def run(*, smoke: bool = False) -> dict[str, float]:
    if not torch.cuda.is_available():
        raise Absent("it needs a GPU, and torch sees none here")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16")
    print(f"{'model':<10}{'whose':<11}{'batch':>8}{'micro':>7}{'samples/s':>11}{'peak GB':>9}")
    figures: dict[str, float] = {}
    for name in NAMES[:1] if smoke else NAMES:
        command = [sys.executable, "-m", "tests.bench.gpu_train", name, *["smoke"] * smoke]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        *table, last = done.stdout.splitlines() or [""]
        print("\n".join(table), flush=True)
        figures |= json.loads(last) if done.returncode == 0 else {}
    for pairs in (FIRST,) if smoke else PAIRS:
        found = one("loss", "-", pairs, pairs, "cuda", 2)
        print(f"InfoNCE   {pairs:>19,} pairs{found['seconds']:>12.2f} s{found['gb']:>9.2f}")
        figures[f"clip_{pairs}_gb"] = found["gb"]
    return {key: round(value, 3) for key, value in figures.items()}


def show(name: str, whose: str, batch: int, micro: int, found: dict[str, float]) -> None:
    rate = batch / found["seconds"]
    print(f"{name:<10}{whose:<11}{batch:>8}{micro:>7}{rate:>11,.0f}{found['gb']:>9.1f}", flush=True)


if __name__ == "__main__":
    print(json.dumps(against_open_clip(sys.argv[1], smoke="smoke" in sys.argv[2:])))
