"""Memory and CPU of a contrastive loss at 16,384 pairs, against open_clip's own losses.

Each loss runs forward and backward once in a process of its own, D = 512, float32, on one thread;
memory is the peak beyond what the process held with its features. ptft and open_clip alternate.
"""

import resource
import time

from tests.bench._parts import apart

PAIRS, D, ROUNDS = 16_384, 512, 2
KINDS = ("clip", "siglip")


def one(kind: str, whose: str, pairs: int) -> dict[str, float]:
    """Measured in this process: peak memory beyond the features (GB), CPU seconds."""
    import torch
    import torch.nn.functional as F

    from ptft.compat import import_open_clip
    from ptft.objective import clip_loss, siglip_loss

    import_open_clip()
    from open_clip.loss import ClipLoss, SigLipLoss

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    features = [
        F.normalize(torch.randn(pairs, D, generator=generator), dim=1).requires_grad_()
        for _ in range(2)
    ]
    scale = torch.tensor([14.0], requires_grad=True)
    bias = torch.tensor([-10.0], requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    if whose == "ptft":
        loss = (
            clip_loss(*features, scale) if kind == "clip" else siglip_loss(*features, scale, bias)
        )
    elif kind == "clip":
        loss = ClipLoss()(*features, scale)
    else:
        loss = SigLipLoss()(*features, scale, logit_bias=bias)
    loss.backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "gb": (peak - before) * 1024 / 1e9,
        "cpu": time.process_time() - started,
        "loss": loss.item(),
    }


def run(*, smoke: bool = False) -> dict[str, float]:
    pairs, rounds = (2_048, 1) if smoke else (PAIRS, ROUNDS)
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for kind in KINDS:
            for whose in ("ptft", "open_clip"):
                found.setdefault(f"{kind}_{whose}", []).append(apart(one, kind, whose, pairs))
    print(f"B = {pairs:,}, D = {D}, forward and backward, one thread, best of {rounds}")
    print(f"{'loss':<8}{'whose':<12}{'GB':>8}{'CPU-s':>8}{'value':>12}")
    figures: dict[str, float] = {}
    for kind in KINDS:
        for whose in ("ptft", "open_clip"):
            times = found[f"{kind}_{whose}"]
            gb, cpu = (min(one[key] for one in times) for key in ("gb", "cpu"))
            print(f"{kind:<8}{whose:<12}{gb:>8.3f}{cpu:>8.1f}{times[0]['loss']:>12.6f}")
            figures |= {f"{kind}_{whose}_gb": round(gb, 3), f"{kind}_{whose}_cpu_s": round(cpu, 2)}
        ratio = figures[f"{kind}_ptft_cpu_s"] / figures[f"{kind}_open_clip_cpu_s"]
        figures[f"{kind}_cpu_ratio"] = round(ratio, 3)
    return figures


BARS = {
    "clip_ptft_gb": ("<=", 0.15),
    "siglip_ptft_gb": ("<=", 0.15),
    "clip_cpu_ratio": ("<=", 0.85),
    "siglip_cpu_ratio": ("<=", 0.85),
}
