"""Retrieval, ranked both ways, against the two products of matrices that it is made of.

10,000 images with 5 captions each, D = 512, float32, on one thread: the ranks of all 10,000 images
among 50,000 captions and back, and the same products in blocks of the same size and nothing else,
in turn; the least of each.
"""

import time

IMAGES, CAPTIONS, D, ROUNDS = 10_000, 5, 512, 2


def run(*, smoke: bool = False) -> dict[str, float]:
    import torch
    import torch.nn.functional as F

    from ptft.evaluate.ranks import blocks_of, rank_retrieval

    images, rounds = (1_000, 1) if smoke else (IMAGES, ROUNDS)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    image_nd = F.normalize(torch.randn(images, D, generator=generator), dim=1)
    own_m = torch.arange(images).repeat_interleave(CAPTIONS)
    noise = torch.randn(len(own_m), D, generator=generator)
    text_md = F.normalize(image_nd[own_m] + noise / 6, dim=1)
    products, ranks = [], []
    for _ in range(rounds):
        started = time.process_time()
        for queries, candidates in ((image_nd, text_md), (text_md, image_nd)):
            for rows in blocks_of(len(queries), len(candidates)):
                queries[rows] @ candidates.T
        between = time.process_time()
        found = rank_retrieval(image_nd, text_md, own_m)
        products.append(between - started)
        ranks.append(time.process_time() - between)
    ratio = min(ranks) / min(products)
    print(f"{images:,} images, {len(text_md):,} captions, both ways, CPU-s on one thread")
    print(f"products alone {min(products):.2f}, ranked {min(ranks):.2f}: {ratio:.3f} times")
    return {
        "products_cpu_s": round(min(products), 2),
        "ranked_cpu_s": round(min(ranks), 2),
        "ratio": round(ratio, 3),
        "recall_at_10": round((found.t2i_m < 10).float().mean().item(), 4),
    }


BARS = {"ratio": ("<=", 1.3)}
