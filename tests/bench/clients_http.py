"""The clients that people have ask the service: whether each is answered as the checkpoint says.

Prints, for OpenAI's client (sync and async), LangChain, LlamaIndex, Infinity's two, requests of
vLLM and Jina, Cohere's client, Immich's requests by Node, a client generated from the service's
document and ``ptft.client``: the largest difference of an entry of an embedding from what the
checkpoint makes of the same texts and pictures. Each client also checks what else it is answered
(usage, dimensions, errors, rankings); one that is not answered so, fails.
"""

import asyncio
import tempfile
from pathlib import Path

from ptft.export import export_model
from ptft.model import save_model
from tests.bench._parts import Absent
from tests.clients.environments import cache_folder, find
from tests.clients.http_harness import (
    HTTP_CLIENTS,
    HTTP_ENVIRONMENT,
    HTTP_SETTINGS,
    TEXTS,
    Answered,
    Asking,
)
from tests.serving.checkpoint import make_model
from tests.serving.conftest import checkpoint_images, checkpoint_texts, noise_pictures
from tests.serving.server import serve_plain

_SMOKE = ("openai", "immich")
_OURS = ("ptft.client", "ptft.client async")


def run(*, smoke: bool = False) -> dict[str, float]:
    """Ask, print the table, return the figures."""
    environment = find(HTTP_ENVIRONMENT, cache_folder())
    model, pictures = make_model(), noise_pictures(3)
    with tempfile.TemporaryDirectory() as home:
        work = Path(home)
        save_model(model, work / "checkpoint")
        info = export_model(work / "checkpoint", work / "model", name="tiny", precisions=())
        expected = checkpoint_texts(model, TEXTS), checkpoint_images(model, pictures)
        with serve_plain(work, {"PTFT_MODEL": str(work / "model"), **HTTP_SETTINGS}) as server:
            named = (info.name, info.embed_dim)
            asking = Asking(server.url, named, *expected, pictures, work)
            found = dict(zip(_OURS, (asking.ours(), asyncio.run(asking.ours_async())), strict=True))
            if environment is not None:
                found |= asking.run(_SMOKE if smoke else HTTP_CLIENTS, environment)
    _print(found)
    figures = _figures(found)
    if environment is None:
        raise Absent(f"no {HTTP_ENVIRONMENT}: `make clients` makes their environment", figures)
    return figures


def _print(found: dict[str, Answered]) -> None:
    print("largest difference of an entry of an embedding from the checkpoint's")
    print(f"{'client':<20}{'texts':>10}{'pictures':>10}")
    for name, one in found.items():
        if one.error is not None:
            print(f"{name:<20} failed: {one.error.strip().splitlines()[-1]}")
            continue
        text, image = ("-" if each is None else f"{each:.1e}" for each in (one.text, one.image))
        print(f"{name:<20}{text:>10}{image:>10}{'' if one.good else '  apart'}")


def _figures(found: dict[str, Answered]) -> dict[str, float]:
    apart = [one for each in found.values() for one in (each.text, each.image) if one is not None]
    return {
        "clients": len(found),
        "failed": sum(not one.good for one in found.values()),
        "max_abs": max(apart, default=0.0),
    }


BARS = {
    "clients": (">=", len(HTTP_CLIENTS) + len(_OURS)),
    "failed": ("<=", 0),
    "max_abs": ("<=", 1e-5),
}
