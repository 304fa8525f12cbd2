"""The images: their sizes, what is in the service's, how it starts, the memory that it takes.

Builds the service's image twice, the second time without podman's cache, and the one with a model
inside (ViT-S-32, random weights), starts that as the chart does, and asks it for 200 embeddings.
Counts the files by which the two builds differ in anything but times that they declare. Builds the
image with CUDA's libraries and the one that trains, and lets each import what it is for. The smoke
builds what the Containerfile says of the service's settings, which needs no base and no network.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import httpx

from ptft.launch.skypilot import AS_ROOT
from tests.bench._parts import Absent
from tests.bench.attacks import make_folder
from tests.support.container import (
    AS_THE_CHART,
    LIMITS,
    PODMAN,
    TMP,
    NoContainers,
    base_image,
    build,
    fill_context,
    inspect,
    podman,
    started,
)

__all__ = ["BARS", "run"]

BARS = {"service_mb": ("<=", 250.0), "differing_files": ("<=", 0.0)}
TAG = "localhost/ptft-bench"
QUESTIONS = 200


def run(*, smoke: bool = False) -> dict[str, float]:
    """Figures by name."""
    if shutil.which(PODMAN[0]) is None:
        raise Absent("podman is not installed")
    try:
        base = "localhost/none" if smoke else base_image()
    except NoContainers as absent:
        raise Absent(str(absent)) from None
    with tempfile.TemporaryDirectory() as place:
        context = fill_context(Path(place) / "context")
        if smoke:
            build(TAG, context, base, "settings")
            found = {"settings_mb": size_mb(TAG)}
            show(found)
            return found
        once = timed_build(f"{TAG}:once", context, base)
        again = timed_build(f"{TAG}:again", context, base, "--no-cache")
        folder = make_folder(Path(place), smoke=False)
        folder.rename(context / "model")
        given = ("--build-arg", "MODEL=model", "--build-arg", "PRECISION=fp32")
        build(f"{TAG}:bundled", context, base, "bundled", *given)
        build(f"{TAG}:gpu", context, base, "service-gpu", seconds=2400)
        cpu = ("--build-arg", "TORCH=torch-cpu")
        build(f"{TAG}:train", context, base, "train", *cpu, seconds=2400)
    found = {
        "service_mb": size_mb(f"{TAG}:once"),
        "differing_files": float(len(differing(f"{TAG}:once", f"{TAG}:again"))),
        "build_s": again,
        "cached_build_s": once,
    }
    table(f"{TAG}:once")
    providers = said(f"{TAG}:gpu", "import onnxruntime as o; print(*o.get_available_providers())")
    assert "CUDAExecutionProvider" in providers.split(), providers
    print(f"gpu: {providers.strip()}; train: {trains(f'{TAG}:train')}")
    found |= {"gpu_mb": size_mb(f"{TAG}:gpu"), "train_mb": size_mb(f"{TAG}:train")}
    found |= asked(f"{TAG}:bundled")
    show(found)
    return found


def show(found: dict[str, float]) -> None:
    """Print figures, a line each."""
    for name, value in found.items():
        print(f"{name:<20} {value:10.2f}")


def trains(image: str) -> str:
    """What the image that trains says of itself, once it has trained: by its entry point, as nobody
    and with a root that it cannot write, to a mirror."""
    config = inspect(image)["Config"]
    assert (config["Entrypoint"], config["User"]) == (["ptft"], "65532:65532"), config
    code = "import gcsfs, s3fs, tensorboard, trackio, wandb, torch, os; "
    told = said(image, code + "print(f'torch {torch.__version__}, user {os.getuid()}')")
    short = ["run.dir=/tmp/run", "run.mirror=/tmp/mirror", "optim.samples_seen=256", "evaluate=[]"]
    words = ["train", "pretrain/scenes", *short, "optim.global_batch=64", "--resume", "auto"]
    done = podman("run", "--rm", *LIMITS, *AS_THE_CHART, *TMP, image, *words, seconds=900)
    assert done.stdout.strip() == "/tmp/run", done.stdout
    assert "/tmp/mirror: mirrored to its end" in done.stderr, done.stderr[-3000:]
    # SkyPilot starts it with a shell, and has to come in as somebody who may install
    shell = ["run", "--rm", *LIMITS, *AS_ROOT, "--entrypoint=/bin/bash", image, "-c"]
    entered = podman(*shell, "whoami && echo ~ && command -v ptft apt-get").stdout.split()
    assert entered == ["root", "/root", "/app/lib/bin/ptft", "/usr/bin/apt-get"], entered
    return told.strip()


def said(image: str, code: str) -> str:
    """What a program of an image prints."""
    words = ["run", "--rm", *LIMITS, "--entrypoint", "python3", image, "-c", code]
    return podman(*words).stdout


def timed_build(tag: str, context: Path, base: str, *more: str) -> float:
    """Build the service; seconds."""
    began = time.monotonic()
    build(tag, context, base, "service", *more)
    return time.monotonic() - began


def size_mb(image: str) -> float:
    """Unpacked, in millions of bytes."""
    return float(inspect(image)["Size"]) / 1e6


def files(image: str) -> dict[str, tuple[str, int]]:
    """Name of each file of an image -> what it is but for its time, and its size."""
    found: dict[str, tuple[str, int]] = {}
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / "image.tar"
        podman("save", "--format", "docker-archive", "--output", archive, image)
        with tarfile.open(archive) as outer:
            manifest = json.load(_member(outer, "manifest.json"))
            for layer in manifest[0]["Layers"]:
                with tarfile.open(fileobj=_member(outer, layer)) as inner:
                    for one in inner:
                        found[one.name] = _identity(inner, one), one.size
    return found


def _member(archive: tarfile.TarFile, name: str) -> "tarfile.ExFileObject":
    stream = archive.extractfile(name)
    assert stream is not None, name
    return stream  # type: ignore[return-value]


def _identity(archive: tarfile.TarFile, one: tarfile.TarInfo) -> str:
    content = ""
    if one.isfile():
        content = hashlib.sha256(_member(archive, one.name).read()).hexdigest()
    return f"{one.type!r} {one.mode:o} {one.uid}:{one.gid} {one.linkname} {content}"


def differing(first: str, second: str) -> list[str]:
    """Names of the files that are not the same in both images."""
    one, other = files(first), files(second)
    names = sorted(n for n in {*one, *other} if one.get(n, ("",))[0] != other.get(n, ("",))[0])
    for name in names[:20]:
        print(f"differs: {name}: {one.get(name)} {other.get(name)}")
    return names


def table(image: str) -> None:
    """What is in it, by folder, the largest first."""
    sums: dict[str, int] = {}
    for name, (_, size) in files(image).items():
        parts = name.split("/")
        depth = 5 if "site-packages" in parts else 3
        key = "/".join(parts[: depth + 1] if "site-packages" in parts else parts[:depth])
        sums[key] = sums.get(key, 0) + size
    for key, size in sorted(sums.items(), key=lambda one: -one[1])[:12]:
        print(f"{size / 1e6:8.1f} MB  {key}")


def asked(image: str) -> dict[str, float]:
    """How a container starts and what it takes."""
    began = time.monotonic()
    with started(image) as (url, name):
        ready = time.monotonic() - began
        tree = processes(name)
        cpu = sum(map(cpu_seconds, tree))
        idle = sum(map(proportional_mb, tree))
        with httpx.Client(base_url=url, timeout=60) as client:
            for at in range(QUESTIONS):
                texts = {"texts": [f"question {at}"]}
                client.post("/v1/embed/text", json=texts).raise_for_status()
        busy = sum(map(proportional_mb, processes(name)))
    return {"ready_s": ready, "ready_cpu_s": cpu, "idle_mb": idle, "asked_mb": busy}


def processes(name: str) -> list[int]:
    """Every process of a container."""
    done = subprocess.run(
        [*PODMAN, "top", name, "hpid"], capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()[1:]]


def cpu_seconds(pid: int) -> float:
    """User and system, with children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def proportional_mb(pid: int) -> float:
    """Resident memory, what processes share divided among them (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(f"/proc/{pid}/smaps_rollup has no Pss")
