"""The linear probe, its C chosen and fitted, against scikit-learn's on the same grid.

20,000 training and 10,000 test embeddings of 128 numbers from 100 classes: anisotropic, as those of
trained towers are, L2-normalised. Both choose among the decades of ``ptft.evaluate.probe.C_GRID``
and the two half decades beside the best by a held-out fifth, each fit starting at the last, and fit
the whole set at the end; scikit-learn's LogisticRegression with its own tolerance for all of it,
ptft's with 1e-4, 1e-6 for those near the best, and 1e-8 at the end. CPU seconds on one thread, in
processes of their own, each in turn.

Then ptft alone on 100,000 embeddings of 512 numbers from 1,000 classes, once.
"""

import time

from tests.bench._parts import apart

TRAIN, TEST, D, CLASSES, ROUNDS = 20_000, 10_000, 128, 100, 2
LARGE = 100_000, 10_000, 512, 1_000
BETWEEN = 0.35  # of the spread within classes: five in six of the test set can be told


def _drawn(train: int, test: int, width: int, classes: int, between: float) -> tuple:
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    spread = torch.arange(1, width + 1) ** -0.7
    centres = between * torch.randn(classes, width, generator=generator) * spread
    labels = torch.randint(0, classes, (train + test,), generator=generator)
    rows = centres[labels] + torch.randn(len(labels), width, generator=generator) * spread
    rows = F.normalize(rows + 3 * torch.randn(width, generator=generator) * spread, dim=1)
    return rows[:train], labels[:train], rows[train:], labels[train:]


def one(
    whose: str, train: int, test: int, width: int, classes: int, between: float
) -> dict[str, float]:
    """Measured in this process: CPU seconds, the C, and the share of the test set that is right."""
    import torch

    from ptft.evaluate.probe import C_GRID, choose_c, fit_probe, stratified_fifth

    torch.set_num_threads(1)
    x, y, test_x, test_y = _drawn(train, test, width, classes, between)
    started = time.process_time()
    if whose == "ptft":
        c = choose_c(x, y, classes=classes, seed=0)
        right = fit_probe(x, y, classes=classes, c=c).logits(test_x).argmax(1) == test_y
        share = float(right.double().mean())
    else:
        from sklearn.linear_model import LogisticRegression

        held = stratified_fifth(y.numpy(), seed=0)
        rows, names = x.double().numpy(), y.numpy()
        model = LogisticRegression(warm_start=True, max_iter=1000)
        score: dict[float, float] = {}

        def attempt(c: float) -> None:
            model.C = c
            model.fit(rows[~held], names[~held])
            score[c] = model.score(rows[held], names[held])

        for c in C_GRID:
            attempt(c)
        best = max(C_GRID, key=score.__getitem__)
        for c in (best / 10**0.5, best * 10**0.5):
            attempt(c)
        c = model.C = max(score, key=score.__getitem__)
        model.fit(rows, names)
        share = float(model.score(test_x.double().numpy(), test_y.numpy()))
    return {"cpu": time.process_time() - started, "c": c, "top1": share}


def run(*, smoke: bool = False) -> dict[str, float]:
    sizes = (400, 200, 16, 8, BETWEEN) if smoke else (TRAIN, TEST, D, CLASSES, BETWEEN)
    found: dict[str, list[dict[str, float]]] = {"ptft": [], "scikit-learn": []}
    for _ in range(1 if smoke else ROUNDS):
        for whose, rounds in found.items():
            rounds.append(apart(one, whose, *sizes))
    print(f"{sizes[0]:,} x {sizes[2]} embeddings, {sizes[3]} classes, best of the rounds")
    print(f"{'whose':<16}{'CPU-s':>8}{'C':>10}{'top1':>10}")
    least = {}
    for whose, rounds in found.items():
        least[whose] = min(rounds, key=lambda one: one["cpu"])
        print(
            f"{whose:<16}{least[whose]['cpu']:>8.1f}{least[whose]['c']:>10.3g}"
            f"{least[whose]['top1']:>10.4f}"
        )
    ours, theirs = least["ptft"], least["scikit-learn"]
    sizes = (800, 200, 24, 16) if smoke else LARGE
    large = apart(one, "ptft", *sizes, BETWEEN)
    print(
        f"{sizes[0]:,} x {sizes[2]} embeddings, {sizes[3]:,} classes: {large['cpu'] / 60:.1f} "
        f"CPU-minutes, C {large['c']:.3g}, top1 {large['top1']:.4f}"
    )
    return {
        "ptft_cpu_s": round(ours["cpu"], 2),
        "scikit_learn_cpu_s": round(theirs["cpu"], 2),
        "cpu_ratio": round(ours["cpu"] / theirs["cpu"], 3),
        "ptft_top1": round(ours["top1"], 4),
        "top1_short": round(theirs["top1"] - ours["top1"], 4),
        "large_cpu_minutes": round(large["cpu"] / 60, 1),
        "large_top1": round(large["top1"], 4),
    }


BARS = {"cpu_ratio": ("<=", 3.0), "top1_short": ("<=", 0.002), "large_cpu_minutes": ("<=", 60.0)}
