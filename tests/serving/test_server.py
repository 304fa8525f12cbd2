"""The service as its own processes: ``bentoml serve`` on a free port."""

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from ptft.artifact import FolderFiles, ModelInfo, hash_files, read_model_info, write_model_info
from ptft.model import DualEncoder
from tests.serving.conftest import checkpoint_images, checkpoint_texts
from tests.serving.server import (
    REPO,
    TARGET,
    Server,
    command,
    environment,
    free_port,
    serve,
    wait_ready,
)

CLIENTS = 8


def test_probes_metrics_and_digest(server: Server, info: ModelInfo) -> None:
    assert httpx.get(f"{server.url}/livez").status_code == 200
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    served = httpx.get(f"{server.url}/v1/model")
    assert served.json()["digest"] == served.headers["ptft-model-digest"] == info.digest
    assert f'ptft_model_info{{digest="{info.digest}"' in httpx.get(f"{server.url}/metrics").text
    assert httpx.get(f"{server.url}/docs").status_code == 200


def test_parallel_clients_get_their_own_answers(
    server: Server, model: DualEncoder, pictures: list[bytes]
) -> None:
    images = checkpoint_images(model, pictures)
    words = [f"text number {index}" for index in range(CLIENTS)]
    texts = checkpoint_texts(model, words)
    headers = {"content-type": "image/png"}

    def ask(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for turn in range(12):
                which = (number + turn) % len(pictures)
                answer = client.post("/v1/embed/image", content=pictures[which], headers=headers)
                found = np.array(answer.json()["results"][0]["embedding"], np.float32)
                np.testing.assert_allclose(found, images[which], rtol=0, atol=1e-5)
                answer = client.post("/v1/embed/text", json={"texts": [words[number]]})
                found = np.array(answer.json()["results"][0]["embedding"], np.float32)
                np.testing.assert_allclose(found, texts[number], rtol=0, atol=1e-5)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(CLIENTS)))


def test_torch_is_not_loaded(server: Server) -> None:
    mapped = Path(f"/proc/{server.worker()}/maps").read_text()
    assert "onnxruntime" in mapped
    assert "/torch/" not in mapped
    code = "import serving.service, serving.model, sys; print(sorted(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    for name in ("torch", "transformers", "open_clip", "timm", "ptft.model"):
        assert f"'{name}'" not in modules


def test_overload_is_refused_and_what_is_accepted_is_answered(
    folder: Path, tmp_path: Path, pictures: list[bytes]
) -> None:
    settings = {"PTFT_MODEL": str(folder), "PTFT_MAX_QUEUE": "4", "PTFT_MAX_BATCH": "4"}
    body = {"images": [base64.b64encode(pictures[0]).decode()] * 4}

    async def flood(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            posts = (client.post("/v1/embed/image", json=body) for _ in range(40))
            return await asyncio.gather(*posts)

    with serve(tmp_path, settings) as server:
        answers = asyncio.run(flood(server.url))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in refused:
            assert answer.json()["error"]["type"] == "queue_full"
            assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert httpx.post(f"{server.url}/v1/embed/image", json=body).status_code == 200
        metrics = httpx.get(f"{server.url}/metrics").text
        assert f'ptft_rejected_total{{key="",reason="queue_full"}} {len(refused)}.0' in metrics


def test_sigterm_loses_nothing(folder: Path, tmp_path: Path, pictures: list[bytes]) -> None:
    """Every request that connects is answered; who comes too late is refused, not left hanging."""
    settings = {"PTFT_MODEL": str(folder), "PTFT_DRAIN_S": "1.5"}
    headers = {"content-type": "image/png"}
    answered: list[int] = []
    failed: list[Exception] = []
    gone = False

    async def keep_asking(client: httpx.AsyncClient, fresh: bool) -> None:
        nonlocal gone
        while not gone:
            extra = {"connection": "close"} if fresh else {}
            try:
                answer = await client.post(
                    "/v1/embed/image", content=pictures[0], headers={**headers, **extra}
                )
                answered.append(answer.status_code)
            except httpx.ConnectError:  # refused: the listening socket is gone
                gone = True
            except Exception as error:
                failed.append(error)
                gone = True

    async def drive(server: Server) -> float:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            asking = [asyncio.create_task(keep_asking(client, n % 2 == 0)) for n in range(8)]
            await asyncio.sleep(1)
            server.terminate()
            started = time.monotonic()
            await asyncio.sleep(0.5)
            before = len(answered)
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            await asyncio.gather(*asking)
            assert len(answered) > before  # it went on answering while it drained
            return time.monotonic() - started

    with serve(tmp_path, settings) as server:
        asyncio.run(drive(server))
        assert failed == []
        assert set(answered) == {200}
        assert server.process.wait(30) is not None


def test_sigterm_waits_for_a_slow_request(folder: Path, tmp_path: Path) -> None:
    """A body that is still being sent when SIGTERM comes is read to its end and answered."""
    settings = {"PTFT_MODEL": str(folder), "PTFT_DRAIN_S": "0"}

    with serve(tmp_path, settings) as server:

        def body() -> object:
            yield b'{"texts": ["a'
            server.terminate()
            time.sleep(1.5)
            yield b' cat"]}'

        answer = httpx.post(
            f"{server.url}/v1/embed/text",
            content=body(),  # type: ignore[arg-type]
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        server.process.wait(30)


@pytest.mark.parametrize("harm", ["other", "byte", "golden"])
def test_another_model_is_not_served(
    folder: Path, info: ModelInfo, tmp_path: Path, harm: str
) -> None:
    settings = {"PTFT_MODEL": str(folder), "PTFT_MODEL_DIGEST": info.digest}
    if harm == "other":
        settings["PTFT_MODEL_DIGEST"] = wanted = "sha256:" + "0" * 64
    else:
        settings["PTFT_MODEL"] = str(tmp_path / "model")
        wanted = _harmed_copy(folder, tmp_path / "model", harm, settings)
    done = subprocess.run(
        command(TARGET, free_port()),
        cwd=REPO,
        env=environment(tmp_path, settings),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert wanted in done.stderr + done.stdout


def _harmed_copy(folder: Path, copy: Path, harm: str, settings: dict[str, str]) -> str:
    """A copy with one byte changed, or one whose weights are of another model; what is said."""
    shutil.copytree(folder, copy)
    if harm == "byte":
        with (copy / FolderFiles.TOKENIZER).open("r+b") as stream:
            stream.seek(100)
            byte = stream.read(1)
            stream.seek(100)
            stream.write(b"x" if byte != b"x" else b"y")
        return "tokenizer.json: sha256"
    info = read_model_info(copy)
    preprocess = {**info.preprocess, "mean": [0.1, 0.2, 0.3]}
    write_model_info(copy, replace(info, preprocess=preprocess, files=hash_files(copy)))
    settings["PTFT_MODEL_DIGEST"] = read_model_info(copy).digest
    return "image_embeds differs by"


@pytest.mark.parametrize("told", ["by PYTHONPATH", "by --working-dir"])
def test_a_relative_model_is_that_of_the_shell(
    folder: Path, info: ModelInfo, tmp_path: Path, told: str
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/pulled").symlink_to(folder)
    settings = {"PTFT_MODEL": "models/pulled", "PTFT_THREADS": "1"}
    options = ["--working-dir", str(REPO)] if "dir" in told else []
    if not options:
        settings["PYTHONPATH"] = str(REPO)
    with serve(tmp_path, settings, cwd=tmp_path, options=options) as server:
        os.kill(server.worker(), signal.SIGKILL)  # the next one finds it, too
        wait_ready(server.url, server.process, server.log)
        assert httpx.get(f"{server.url}/v1/model").json()["digest"] == info.digest


def test_an_absent_model_is_told_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        command(TARGET, free_port()),
        cwd=tmp_path,
        env=environment(tmp_path, {"PTFT_MODEL": "models/pulled", "PYTHONPATH": str(REPO)}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    line = f"ptft: PTFT_MODEL={tmp_path / 'models/pulled'}: no such folder"
    assert line in done.stderr.splitlines()
    assert "Traceback" not in done.stderr + done.stdout


def test_a_dead_worker_is_replaced(server: Server) -> None:
    first = server.worker()
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    assert server.worker() != first
    assert httpx.post(f"{server.url}/v1/embed/text", json={"texts": ["a"]}).status_code == 200
