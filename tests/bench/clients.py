"""What every client makes of one pushed model folder, against ptft's own embeddings.

Four small models go to a Hub on loopback; open_clip, transformers 4.57 and 5, timm,
sentence-transformers, optimum-onnx, onnxruntime and transformers.js pull them and embed the same
tensors, and drawn scenes, photographs (where ../shared is) and captions with entities, emoji,
special tokens, nothing, and too much in them; each what it says in ``ptft.json`` that it loads.
Makes the clients' environments first where they are not there.
Pictures of transformers.js are held to no bar where the folder lacks ``onnx/preprocess.onnx``:
JavaScript resizes in another way.
"""

import io
import tarfile
import tempfile
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars
from PIL import Image

from tests.bench._parts import Absent
from tests.clients.environments import NODE, cache_folder, find, make
from tests.clients.harness import CLIENTS, ENVIRONMENTS, Bench, Figures, scenes
from tests.clients.models import MODELS
from tests.support.hub_parts import TOKEN
from tests.support.loopback_hub import LoopbackHub

_PHOTOS = Path(__file__).resolve().parents[3] / "shared/data/grocery/test-000000.tar"


def photos(count: int = 3) -> list[Image.Image]:
    """Decoded photographs, none where there are no shared data."""
    if not _PHOTOS.is_file():
        return []
    with tarfile.open(_PHOTOS) as tar:
        names = [name for name in tar.getnames() if name.endswith((".jpg", ".jpeg"))][:count]
        files = [tar.extractfile(name) for name in names]
        return [Image.open(io.BytesIO(file.read())).convert("RGB") for file in files if file]


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    constants.HF_HUB_DISABLE_XET = True  # the loopback Hub speaks LFS only
    disable_progress_bars()
    cache = cache_folder()
    if not smoke:
        for name in ENVIRONMENTS:
            make(name, cache)
    here = [name for name in (None, *ENVIRONMENTS) if name is None or find(name, cache)]
    models = MODELS[:1] if smoke else MODELS
    found: dict[tuple[str, str], Figures] = {}
    pictures = [*scenes(), *photos()]
    with tempfile.TemporaryDirectory() as work, LoopbackHub(token=TOKEN) as hub:
        bench = Bench(hub, Path(work), models, pictures)
        for environment in here:
            clients = [client for client in CLIENTS if client.environment == environment]
            bench.run(clients, cache)
            for client in clients:
                loads = [one for one in models if bench.loads(client, one)]
                found |= {(client.label, one): bench.figures(client, one) for one in loads}
    print(f"{len(pictures)} pictures; same: largest difference on the same tensors")
    print(f"{'client':<27}{'model':<8}{'same':>9}{'pictures':>12}{'captions':>12}")
    for (label, name), one in found.items():
        if one.error is not None:
            print(f"{label:<27}{name:<8} failed: {one.error.strip().splitlines()[-1]}")
            continue
        image, text = (
            "-" if cosine is None else f"{cosine:.7f}" for cosine in (one.image, one.text)
        )
        print(f"{label:<27}{name:<8}{one.same:>9.1e}{image:>12}{text:>12}")
    figures = _figures(found, prepares=bench.prepares)
    if missing := set(ENVIRONMENTS) - set(here):
        raise Absent(
            f"no {', '.join(sorted(missing))}: `make clients` makes their environments", figures
        )
    return figures


def _figures(found: dict[tuple[str, str], Figures], *, prepares: bool) -> dict[str, float]:
    apart = {one.label for one in CLIENTS if one.environment == NODE and not prepares}
    rows = found.items()
    same = [one.same for _, one in rows if one.same is not None]
    text = [one.text for _, one in rows if one.text is not None]
    image = [one.image for (label, _), one in rows if one.image is not None and label not in apart]
    return {
        "failed": sum(one.error is not None for one in found.values()),
        "max_abs": max(same),
        "picture_cosine": min(image),
        "caption_cosine": min(text),
    }


BARS = {
    "failed": ("<=", 0),
    "max_abs": ("<=", 1e-5),
    "picture_cosine": (">=", 0.9999),
    "caption_cosine": (">=", 0.9999),
}
