"""Architectures: the class of transformers and the network of timm that each of open_clip's is.

Every architecture is built small, with random weights, exported, loaded by both libraries from the
folder and held to its own embeddings (see ``ptft.export.library_files``); where a library has no
such class, the reason is printed.
"""

import tempfile
from collections import Counter
from pathlib import Path

import torch

from tests.support.architectures import convert_all, names

BARS = {
    "exact in transformers": (">=", 91),  # what a survey of the classes counted by hand
    "largest difference": ("<=", 1e-5),
}


_FEW = ("RN50", "ViT-B-32", "ViT-B-16-SigLIP")


def run(*, smoke: bool = False) -> dict[str, float]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = convert_all(Path(folder), _FEW if smoke else names())
    for name, libraries in found.items():
        transformers, timm = libraries["transformers"], libraries["timm"]
        print(
            f"{name:34} {transformers.loads or '-: ' + str(transformers.reason)}"
            f" | {timm.loads or '-: ' + str(timm.reason)}"
        )
    counts = Counter(libraries["transformers"].loads for libraries in found.values())
    by_class = {str(name): float(count) for name, count in counts.items() if name is not None}
    differences = [
        one.max_abs
        for libraries in found.values()
        for one in libraries.values()
        if one.max_abs is not None
    ]
    return {
        **by_class,
        "exact in transformers": sum(by_class.values()),
        "image towers in timm": sum(each["timm"].loads is not None for each in found.values()),
        "largest difference": max(differences),
    }
