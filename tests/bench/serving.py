"""CPU that the service takes for a picture or a text, against the work itself and two peers.

ViT-S-32 with random weights, a picture or a short text a request, one thread. The limit is the
same work in a plain loop in this process: decoding, preprocessing and the tower, or tokenising and
the tower, at the batch that the service ran at. Peers run the same model on the same library with
the lines of its own card: LitServe, and BentoML's own batched API, each as its documentation has
it. All services are up at once and are asked in turn, ours and the loop between them; ratios are
medians over the rounds.

``int8 B`` and ``fp32 B`` are the same of the larger ViT-B-32, of which decoding and resizing, which
both precisions share, are less.

``small`` are JPEGs of 640x480, of which the tower is most of the work. ``photos`` are what people
send: a phone's photograph of 12 megapixels, one that a messenger has passed on (2), and a small one
in turn. What is held against the peers is the latter. Before anything is measured, all services
must give the same embeddings, to a cosine of 0.9995: large JPEGs are reduced here while they are
decoded.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from ptft.artifact import FolderFiles, read_json, read_model_info
from ptft.export import export_model
from ptft.model import build_model, save_model
from ptft.onnx.model import OnnxModel
from ptft.onnx.processor import saturation_note
from ptft.preprocess import ImagePreprocess, decode_image
from ptft.preprocess.picture_header import read_header
from ptft.recipe import ArchModel, ClipObjective
from tests.bench._client import in_turn, post
from tests.bench._honest import quantile
from tests.bench._parts import Absent
from tests.bench._processes import cpu_seconds
from tests.bench._services import LITSERVE, PHOTOS, SMALL, Service, Turning, others, picture
from tests.clients.environments import cache_folder, make
from tests.serving.server import serve_plain
from tests.support.tiny import arch_section

__all__ = ["BARS", "picture", "run"]

ROUNDS, SECONDS = 7, 3.0
TEXT = "a photo of a cat"
_PRECISIONS = ("fp32", "int8")
_COSINE = 0.9995  # of a reduced JPEG to the whole one


@dataclass(frozen=True)
class Asked:
    """Something that is measured: requests to a service, by so many clients at once.

    Attributes:
        name: of the row.
        pid: of the service.
        url, requests: where to, and what in turn.
        clients: at once.
        loop: the same work without a service.
        kind: of what the batches are counted, image or text; empty for a peer.
    """

    name: str
    pid: int
    url: str
    requests: tuple[bytes, ...]
    clients: int
    loop: "Loop"
    kind: str = ""


@dataclass
class Figures:
    """CPU-ms and seconds of answers, and items a batch."""

    cpu_ms: float
    seconds: list[float]
    batch: float


def measure(asked: Asked, seconds: float) -> Figures:
    """One turn."""
    client = Turning(asked.url, asked.requests)

    async def drive() -> list[float]:
        try:
            return [one.seconds for one in await in_turn(client, asked.clients, seconds)]
        finally:
            client.close()

    before, cpu = batches(asked), cpu_seconds(asked.pid)
    found = asyncio.run(drive())
    cpu = (cpu_seconds(asked.pid) - cpu) / len(found) * 1e3
    items, count = (now - then for now, then in zip(batches(asked), before, strict=True))
    return Figures(cpu, found, items / count if count else 0.0)


def batches(asked: Asked) -> tuple[float, float]:
    """Items that ran through the tower so far, and in how many batches."""
    if not asked.kind:
        return 0.0, 0.0
    text = httpx.get(f"{asked.url}/metrics", timeout=60).text
    names = (rf'ptft_batch_items_{end}{{kind="{asked.kind}"}} (\S+)' for end in ("sum", "count"))
    found = [re.search(name, text) for name in names]
    return tuple(float(one[1]) if one else 0.0 for one in found)  # type: ignore[return-value]


class Loop:
    """The work without any service, CPU-ms an item.

    Args:
        folder, precision: of the model.
        pictures: to embed in turn; none for texts.
    """

    def __init__(self, folder: Path, precision: str, pictures: Sequence[bytes] = ()) -> None:
        self._model = OnnxModel(folder, read_model_info(folder), precision, 1)
        self._pictures = pictures

    def __call__(self, batch: int, seconds: float) -> float:
        started, count = time.process_time(), 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or count % max(1, len(self._pictures)):
            if self._pictures:
                turns = [
                    self._pictures[n % len(self._pictures)] for n in range(count, count + batch)
                ]
                pixels = [self._model.preprocess.pixels(self.decode(data)) for data in turns]
                self._model.encode_images(list(self._model.preprocess.normalise(np.stack(pixels))))
            else:
                self._model.encode_texts(list(self._model.tokenizer([TEXT] * batch)))
            count += batch
        return (time.process_time() - started) / count * 1e3

    def decode(self, data: bytes) -> Image.Image:
        """Reduced as the service reduces it."""
        header = read_header(data)
        assert header is not None
        return decode_image(data, name="x", least=self._model.preprocess.least_size(header.size))


def parts(folder: Path, data: bytes, seconds: float) -> dict[str, float]:
    """CPU-ms that a picture takes in this process, by what is done with it: what both precisions
    share, and each tower with one at once and with four."""
    loop = Loop(folder, "fp32", (data,))
    image = loop.decode(data)
    preprocess = read_model_info(folder).preprocess
    make = ImagePreprocess.from_config(preprocess)
    found = {
        "decode": _each(lambda: loop.decode(data), 1, seconds),
        "resize": _each(lambda: make.pixels(image), 1, seconds),
    }
    for precision in _PRECISIONS:
        model = OnnxModel(folder, read_model_info(folder), precision, 1)
        for count in (1, 4):
            batch = make.normalise(np.stack([make.pixels(image)] * count))
            run = partial(model.encode_images, batch)
            found[f"{precision}, {count} at once"] = _each(run, count, seconds)
    return found


def _each(work: Callable[[], object], count: int, seconds: float) -> float:
    """Least CPU-ms of an item: whatever else the machine does only adds."""
    least, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.process_time()
        work()
        least = min(least, time.process_time() - started)
    return least / count * 1e3


def make_folder(home: Path, *, smoke: bool = False, name: str = "ViT-S-32") -> Path:
    home.mkdir(exist_ok=True)
    section = arch_section() if smoke else ArchModel(name=name)
    save_model(build_model(section, None, ClipObjective(), seed=0), home / "checkpoint")
    export_model(
        home / "checkpoint", home / "model", name="bench", precisions=("int8",), measure=False
    )
    left_out = read_json(home / "model" / FolderFiles.METRICS)["left_out"]
    if left_out and saturation_note("int8"):
        raise Absent("; ".join(left_out.values()))
    return home / "model"


def both(folder: Path, home: Path, stack: contextlib.ExitStack) -> list[Service]:
    """Our service on a folder, in each precision."""
    settings = {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1"}
    started = [
        stack.enter_context(serve_plain(home, {**settings, "PTFT_PRECISION": precision}))
        for precision in _PRECISIONS
    ]
    return [Service("ours", one.process.pid, one.url) for one in started]


def rows(
    folder: Path, ours: Service, int8: Service, peers: Sequence[Service], sizes: Sequence[object]
) -> list[Asked]:
    """All that is measured."""
    photos = [picture(size) for size in sizes]  # type: ignore[arg-type]
    small = (photos[-1],)
    loop, of_photos = Loop(folder, "fp32", small), Loop(folder, "fp32", photos)
    texts = Loop(folder, "fp32")
    text = post("/v1/embed/text", "application/json", json.dumps({"texts": [TEXT]}).encode())

    def asked(name: str, one: Service, files: Sequence[bytes], clients: int, kind: str) -> Asked:
        requests = tuple(map(one.request, files))
        which = of_photos if files is photos else loop
        which = Loop(folder, "int8", small) if one is int8 else which
        return Asked(name, one.pid, one.url, requests, clients, which, kind)

    found = [
        asked("8 clients", ours, small, 8, "image"),
        asked("32 clients", ours, small, 32, "image"),
        asked("int8", int8, small, 8, "image"),
        Asked("text", ours.pid, ours.url, (text,), 8, texts, "text"),
        asked("lone client", ours, small, 1, "image"),
        *(asked(f"{peer.name} small", peer, small, 8, "") for peer in peers),
        asked("photos", ours, photos, 8, "image"),
        *(asked(f"{peer.name} photos", peer, photos, 8, "") for peer in peers),
    ]
    for data in photos:
        expected = ours.embedding(data)
        for peer in peers:
            assert peer.embedding(data) @ expected >= _COSINE, peer.name
    return found


def larger(home: Path, stack: contextlib.ExitStack) -> list[Asked]:
    """Small pictures, asked of ViT-B-32 in each precision."""
    folder, data = make_folder(home, name="ViT-B-32"), picture(SMALL)
    return [
        Asked(
            f"{precision} B",
            one.pid,
            one.url,
            (one.request(data),),
            8,
            Loop(folder, precision, (data,)),
            "image",
        )
        for precision, one in zip(_PRECISIONS, both(folder, home, stack), strict=True)
    ]


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    if not smoke:
        make(LITSERVE, cache_folder())
    rounds, seconds = (1, 0.3) if smoke else (ROUNDS, SECONDS)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        home = Path(place)
        folder = make_folder(home, smoke=smoke)
        ours, int8 = both(folder, home, stack)
        peers = [] if smoke else others(folder, home, stack)
        asked = rows(folder, ours, int8, peers, (SMALL,) if smoke else PHOTOS)
        if not smoke:
            asked += larger(home / "larger", stack)
        for each in asked:
            measure(each, seconds / 2)  # warm
        table: dict[str, list[tuple[Figures, float]]] = {each.name: [] for each in asked}
        for _ in range(rounds):
            for each in asked:
                found = measure(each, seconds)
                limit = each.loop(max(1, round(found.batch)), seconds)
                table[each.name].append((found, limit))
        alone = parts(folder, picture(SMALL), seconds / 3)
    show(table, load)
    print("in this process: " + ", ".join(f"{name} {ms:.2f}" for name, ms in alone.items()))
    return figures(table)


def show(table: dict[str, list[tuple[Figures, float]]], load: float) -> None:
    print(f"one thread, {len(table['8 clients'])} rounds; load before {load:.1f}")
    print(f"{'':<16}{'CPU-ms':>8}{'limit':>8}{'ratio':>7}{'batch':>7}{'p50 ms':>9}{'p99 ms':>9}")
    for name, found in table.items():
        times = [one for row, _ in found for one in row.seconds]
        print(
            f"{name:<16}{np.median([row.cpu_ms for row, _ in found]):>8.2f}"
            f"{np.median([limit for _, limit in found]):>8.2f}{ratio(found):>7.2f}"
            f"{np.median([row.batch for row, _ in found]):>7.1f}"
            f"{quantile(times, 0.5) * 1e3:>9.1f}{quantile(times, 0.99) * 1e3:>9.1f}"
        )


def ratio(found: list[tuple[Figures, float]]) -> float:
    """Of the service to the limit of the same round."""
    return float(np.median([row.cpu_ms / limit for row, limit in found]))


def figures(table: dict[str, list[tuple[Figures, float]]]) -> dict[str, float]:
    def against(name: str, own: str) -> float:
        pairs = zip(table[name], table[own], strict=True)
        return round(float(np.median([row.cpu_ms / one.cpu_ms for (row, _), (one, _) in pairs])), 3)

    found = {
        "ratio_8": round(ratio(table["8 clients"]), 3),
        "ratio_32": round(ratio(table["32 clients"]), 3),
        "ratio_photos": round(ratio(table["photos"]), 3),
        "text_ratio_8": round(ratio(table["text"]), 3),
        "int8_of_fp32": against("int8", "8 clients"),
    }
    if "int8 B" in table:
        found["int8_of_fp32_larger"] = against("int8 B", "fp32 B")
    for name in (LITSERVE, "bentoml"):
        if f"{name} photos" in table:
            found[f"{name}_of_ours"] = against(f"{name} photos", "photos")
            found[f"{name}_of_ours_small"] = against(f"{name} small", "8 clients")
    if "litserve_of_ours" not in found and "bentoml_of_ours" in found:
        raise Absent("no LitServe: tests.clients.environments makes its environment", found)
    return found


BARS = {
    "ratio_8": ("<=", 1.05),
    "ratio_32": ("<=", 1.05),
    "text_ratio_8": ("<=", 1.2),
    "int8_of_fp32": ("<=", 0.5),
    "int8_of_fp32_larger": ("<=", 0.5),
    "litserve_of_ours": (">=", 1.25),
    "bentoml_of_ours": (">=", 1.25),
}
