"""CPU that the service takes for an image, against what the work itself takes in one process.

Prints, for a 640x480 JPEG and ViT-S-32 with random weights: CPU-milliseconds of the server for a
request at eight clients, the same for decoding, preprocessing and the tower alone in a loop (one
image a batch), their ratio, and the latencies. Both have one thread and run one after the other.
"""

import asyncio
import io
import os
import tempfile
import time
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
from tests.serving.server import serve
from tests.support.tiny import arch_section

CLIENTS, REQUESTS = 8, 400


def picture() -> bytes:
    """A JPEG of 640x480 with the detail of a photograph, about 60 kB."""
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_process(folder: Path, data: bytes, count: int) -> float:
    """CPU-ms an image without any service."""
    model = OnnxModel(folder, read_model_info(folder), "fp32", 1)
    for times in (count // 5, count):  # the first warm up
        started = time.process_time()
        for _ in range(times):
            model.encode_images([model.preprocess(decode_image(data, name="bench"))])
    return (time.process_time() - started) / count * 1e3


async def drive(url: str, data: bytes, clients: int, count: int) -> list[float]:
    seconds: list[float] = []

    async def ask(client: httpx.AsyncClient, turns: int) -> None:
        for _ in range(turns):
            started = time.perf_counter()
            answer = await client.post(
                "/v1/embed/image", content=data, headers={"content-type": "image/jpeg"}
            )
            assert answer.status_code == 200, answer.text
            seconds.append(time.perf_counter() - started)

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(ask(client, count // clients) for _ in range(clients)))
    return seconds


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    data = picture()
    section = arch_section() if smoke else ArchModel(name="ViT-S-32")
    requests, lone = (2 * CLIENTS, 4) if smoke else (REQUESTS, 40)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "model"
        objective = ClipObjective()
        save_model(build_model(section, None, objective, seed=0), folder)
        export_model(folder, Path(home) / "exported", name="bench", precisions=())
        folder = Path(home) / "exported"
        settings = {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1"}
        with serve(Path(home), settings) as server:
            worker = server.worker()
            asyncio.run(drive(server.url, data, CLIENTS, requests // 5))
            before = cpu_seconds(worker)
            seconds = asyncio.run(drive(server.url, data, CLIENTS, requests))
            served = (cpu_seconds(worker) - before) / len(seconds) * 1e3
            alone = asyncio.run(drive(server.url, data, 1, lone))
        limit = in_process(folder, data, requests // 4)
    half, tail = np.quantile(seconds, [0.5, 0.99]) * 1e3
    print(f"{section.name}, JPEG of {len(data)} bytes, one thread")
    print(f"{len(seconds)} requests of {CLIENTS} clients")
    print(f"server      {served:6.1f} CPU-ms a request")
    print(f"in process  {limit:6.1f} CPU-ms an image")
    print(f"ratio       {served / limit:6.2f}")
    print(f"latency     {half:6.1f} ms at the median, {tail:.1f} ms at 99 %")
    print(f"lone client {np.median(alone) * 1e3:6.1f} ms at the median")
    return {
        "server_cpu_ms": round(served, 2),
        "in_process_cpu_ms": round(limit, 2),
        "ratio": round(served / limit, 3),
    }


BARS = {"ratio": ("<=", 1.25)}
