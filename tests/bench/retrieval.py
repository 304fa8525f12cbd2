"""Retrieval, ranked both ways, against the two products of matrices that it is made of.

100,000 images with 5 captions each, D = 512, float32, on one thread: a share of the images is
ranked among all 500,000 captions and their captions among all images, as one of many ranks would;
and the same products and nothing else, in tiles of the size that is fastest here; in turn, the
least of each.

Then the memory of a zero-shot evaluation beside its embeddings, of 10,000 samples and 20,000
classes, under two settings of ``run.evaluate_mb``; their ranks are the same.
"""

import time

from tests.bench._parts import apart
from tests.bench._processes import Watch, private_mb

IMAGES, CAPTIONS, D, SHARE, ROUNDS = 100_000, 5, 512, 1_024, 2
SAMPLES, CLASSES, SETTINGS = 10_000, 20_000, (64, 256)
_ROWS, _COLUMNS = 1 << 10, 1 << 14


def zero_shot(samples: int, classes: int, megabytes: int) -> tuple[float, int]:
    """MB beside the embeddings, and the sum of the ranks, in this process."""
    import torch
    import torch.nn.functional as F

    from ptft.evaluate.class_ranks import rank_blocks
    from ptft.evaluate.ranks import scores_within

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = F.normalize(torch.randn(samples, D, generator=generator), dim=1)
    rows = F.normalize(torch.randn(classes, D, generator=generator), dim=1)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    inputs[:8] @ rows.T  # what the first product sets up
    before = private_mb()
    with Watch().watching() as watch, scores_within(megabytes):
        found = rank_blocks(lambda some: 100.0 * some @ rows.T, inputs, labels, classes)
    return watch.high - before, int(found.ranks_n.sum())


def _ranking(images: int, share: int, rounds: int) -> dict[str, float]:
    import torch
    import torch.nn.functional as F

    from ptft.evaluate.ranks import caption_ranks, image_ranks

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    image_nd = F.normalize(torch.randn(images, D, generator=generator), dim=1)
    own_m = torch.arange(images).repeat_interleave(CAPTIONS)
    noise = torch.randn(len(own_m), D, generator=generator)
    text_md = F.normalize(image_nd[own_m] + noise / 6, dim=1)
    queries = [image_nd[:share], text_md[: share * CAPTIONS]]
    products, ranks, found = [], [], text_md.new_empty(0)
    for _ in range(rounds):
        started = time.process_time()
        for asked, candidates in zip(queries, (text_md, image_nd), strict=True):
            for row in range(0, len(asked), _ROWS):
                for column in range(0, len(candidates), _COLUMNS):
                    asked[row : row + _ROWS] @ candidates[column : column + _COLUMNS].T
        between = time.process_time()
        image_ranks(queries[0], text_md, own_m)
        found = caption_ranks(image_nd, queries[1], own_m[: share * CAPTIONS])
        products.append(between - started)
        ranks.append(time.process_time() - between)
    ratio = min(ranks) / min(products)
    print(
        f"{share:,} of {images:,} images and their captions, of {len(text_md):,}, both ways, "
        f"CPU-s on one thread"
    )
    print(f"products alone {min(products):.2f}, ranked {min(ranks):.2f}: {ratio:.3f} times")
    return {
        "products_cpu_s": round(min(products), 2),
        "ranked_cpu_s": round(min(ranks), 2),
        "ratio": round(ratio, 3),
        "recall_at_10": round((found < 10).float().mean().item(), 4),
    }


def run(*, smoke: bool = False) -> dict[str, float]:
    figures = _ranking(*((1_000, 1_000, 1) if smoke else (IMAGES, SHARE, ROUNDS)))
    samples, classes = (1_000, 2_000) if smoke else (SAMPLES, CLASSES)
    sums = set()
    for megabytes in SETTINGS:
        taken, ranks = apart(zero_shot, samples, classes, megabytes)
        sums.add(ranks)
        figures[f"zero_shot_mb_of_{megabytes}"] = round(taken, 1)
        print(f"zero-shot, {samples:,} x {classes:,}, within {megabytes} MB: {taken:.0f} MB")
    return {**figures, "zero_shot_differs": float(len(sums) - 1)}


BARS = {
    "ratio": ("<=", 1.3),
    **{f"zero_shot_mb_of_{megabytes}": ("<=", float(megabytes)) for megabytes in SETTINGS},
    "zero_shot_differs": ("<=", 0.0),
}
