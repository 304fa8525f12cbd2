"""CPU that the service takes for a picture or a text, against the work itself and two peers.

ViT-S-32 with random weights, a JPEG of 640x480 or a short text a request, one thread. The limit is
the same work in a plain loop in this process: decoding, preprocessing and the tower, or tokenising
and the tower, at the batch that the service ran at. Peers run the same model on the same library:
LitServe, and BentoML's own batched API, each as its documentation has it. All services are up at
once and are asked in turn, ours and the loop between them; ratios are medians over the rounds.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageFilter

from ptft.artifact import read_model_info
from ptft.export import export_model
from ptft.model import build_model, save_model
from ptft.onnx.model import OnnxModel
from ptft.preprocess import decode_image
from ptft.recipe import ArchModel, ClipObjective
from tests.bench._client import Client, in_turn, post
from tests.bench._honest import quantile
from tests.bench._parts import Absent
from tests.clients.environments import cache_folder, find, make
from tests.serving.attacks import BOUNDARY, form
from tests.serving.server import environment, free_port, serve_plain
from tests.support.tiny import arch_section

ROUNDS, SECONDS = 7, 4.0
TEXT = "a photo of a cat"
HERE = Path(__file__).parent
LITSERVE = "litserve"  # its pins: tests/clients/litserve.txt
_START_S = 120


def picture() -> bytes:
    """A JPEG of 640x480 with the detail of a photograph, about 60 kB."""
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def cpu_seconds(root: int) -> float:
    """Of a process and all that descend from it."""
    ticks, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Asked:
    """Something that is measured: a request to a service, by so many clients at once.

    Attributes:
        name: of the row.
        pid: of the service.
        url, request: where to, and what.
        clients: at once.
        kind: of what the batches are counted, image or text; empty for a peer.
    """

    name: str
    pid: int
    url: str
    request: bytes
    clients: int
    kind: str = ""


@dataclass
class Figures:
    """CPU-ms and seconds of answers, and items a batch."""

    cpu_ms: float
    seconds: list[float]
    batch: float


def measure(asked: Asked, seconds: float) -> Figures:
    """One turn."""
    client = Client(asked.url, asked.request)

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
    """The work without any service, CPU-ms an item."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self._model = OnnxModel(folder, read_model_info(folder), "fp32", 1)
        self._data = data

    def __call__(self, kind: str, batch: int, seconds: float) -> float:
        started, count = time.process_time(), 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            if kind == "image":
                pixels = [
                    self._model.preprocess(decode_image(self._data, name="x")) for _ in range(batch)
                ]
                self._model.encode_images(pixels)
            else:
                self._model.encode_texts(list(self._model.tokenizer([TEXT] * batch)))
            count += batch
        return (time.process_time() - started) / count * 1e3


@contextlib.contextmanager
def peer(words: list[str], home: Path, url: str, ready: str, **more: str) -> Iterator[int]:
    """A peer's service, once it answers; its process."""
    log = (home / f"{Path(words[-1]).name}.log").open("wb")
    variables = {**environment(home, more), "PYTHONPATH": f"{HERE.parents[1]}:{HERE}"}
    process = subprocess.Popen(
        words, env=variables, stdout=log, stderr=log, cwd=HERE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}{ready}", timeout=5).status_code == 200:
                    break
            assert process.poll() is None and time.monotonic() < deadline, log.name
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:  # LitServe leaves processes behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        log.close()


def peers(folder: Path, home: Path, data: bytes, stack: contextlib.ExitStack) -> list[Asked]:
    """Those that are here."""
    found = []
    lit = find(LITSERVE, cache_folder())
    if lit is not None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        words = [str(lit / "bin" / "python"), str(HERE / "_litserve.py"), str(folder), str(port)]
        pid = stack.enter_context(peer(words, home, url, "/health"))
        body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
        found.append(Asked(LITSERVE, pid, url, post("/predict", "application/json", body), 8))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("bentoml"))
    words = [program, "serve", "_bento:Embed", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "BENCH_FOLDER": str(folder)}
    pid = stack.enter_context(peer(words, home, url, "/readyz", **quiet))
    whole = form([data]).replace(b'filename="f"', b'filename="f"\r\ncontent-type: image/jpeg')
    request = post("/embed", f"multipart/form-data; boundary={BOUNDARY}", whole)
    found.append(Asked("bentoml", pid, url, request, 8))
    return found


def make_folder(home: Path, *, smoke: bool) -> Path:
    section = arch_section() if smoke else ArchModel(name="ViT-S-32")
    save_model(build_model(section, None, ClipObjective(), seed=0), home / "checkpoint")
    export_model(
        home / "checkpoint", home / "model", name="bench", precisions=("int8",), measure=False
    )
    return home / "model"


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    if not smoke:
        make(LITSERVE, cache_folder())
    data = picture()
    rounds, seconds = (1, 0.3) if smoke else (ROUNDS, SECONDS)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        home = Path(place)
        folder = make_folder(home, smoke=smoke)
        settings = {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1"}
        ours = stack.enter_context(serve_plain(home, settings))
        int8 = stack.enter_context(serve_plain(home, {**settings, "PTFT_PRECISION": "int8"}))
        image = post("/v1/embed/image", "image/jpeg", data)
        text = post("/v1/embed/text", "application/json", json.dumps({"texts": [TEXT]}).encode())
        asked = [
            Asked("8 clients", ours.process.pid, ours.url, image, 8, "image"),
            Asked("32 clients", ours.process.pid, ours.url, image, 32, "image"),
            Asked("int8", int8.process.pid, int8.url, image, 8, "image"),
            Asked("text", ours.process.pid, ours.url, text, 8, "text"),
            Asked("lone client", ours.process.pid, ours.url, image, 1, "image"),
            *([] if smoke else peers(folder, home, data, stack)),
        ]
        loop = Loop(folder, data)
        for each in asked:
            measure(each, seconds / 2)  # warm
        table: dict[str, list[tuple[Figures, float]]] = {each.name: [] for each in asked}
        for _ in range(rounds):
            for each in asked:
                found = measure(each, seconds)
                limit = loop(each.kind or "image", max(1, round(found.batch)), seconds / 4)
                table[each.name].append((found, limit))
    show(table, load)
    return figures(table)


def show(table: dict[str, list[tuple[Figures, float]]], load: float) -> None:
    print(f"JPEG of 640x480, one thread, {len(table['8 clients'])} rounds; load before {load:.1f}")
    print(f"{'':<13}{'CPU-ms':>8}{'limit':>8}{'ratio':>7}{'batch':>7}{'p50 ms':>9}{'p99 ms':>9}")
    for name, rows in table.items():
        times = [one for row, _ in rows for one in row.seconds]
        print(
            f"{name:<13}{np.median([row.cpu_ms for row, _ in rows]):>8.2f}"
            f"{np.median([limit for _, limit in rows]):>8.2f}{ratio(rows):>7.2f}"
            f"{np.median([row.batch for row, _ in rows]):>7.1f}"
            f"{quantile(times, 0.5) * 1e3:>9.1f}{quantile(times, 0.99) * 1e3:>9.1f}"
        )


def ratio(rows: list[tuple[Figures, float]]) -> float:
    """Of the service to the limit of the same round."""
    return float(np.median([row.cpu_ms / limit for row, limit in rows]))


def figures(table: dict[str, list[tuple[Figures, float]]]) -> dict[str, float]:
    ours = [row.cpu_ms for row, _ in table["8 clients"]]

    def against(name: str) -> float:
        return round(
            float(
                np.median(
                    [row.cpu_ms / one for (row, _), one in zip(table[name], ours, strict=True)]
                )
            ),
            3,
        )

    found = {
        "ratio_8": round(ratio(table["8 clients"]), 3),
        "ratio_32": round(ratio(table["32 clients"]), 3),
        "text_ratio_8": round(ratio(table["text"]), 3),
        "int8_of_fp32": against("int8"),
        **{f"{name}_of_ours": against(name) for name in (LITSERVE, "bentoml") if name in table},
    }
    if LITSERVE not in table and "bentoml" in table:
        raise Absent("no LitServe: tests.clients.environments makes its environment", found)
    return found


BARS = {
    "ratio_8": ("<=", 1.05),
    "ratio_32": ("<=", 1.05),
    "text_ratio_8": ("<=", 1.2),
    "int8_of_fp32": ("<=", 0.5),
    "litserve_of_ours": (">=", 1.25),
    "bentoml_of_ours": (">=", 1.25),
}
