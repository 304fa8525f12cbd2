"""The images of the Containerfile, built and run by podman on this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.serving.server import free_port

__all__ = [
    "AS_THE_CHART",
    "LIMITS",
    "PODMAN",
    "REPO",
    "TMP",
    "NoContainers",
    "base_image",
    "build",
    "fill_context",
    "inspect",
    "podman",
    "started",
]

REPO = Path(__file__).resolve().parents[2]
BASE = "localhost/ptft-test-base:bookworm"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
PODMAN = ["podman", "--runtime", "runc"]
# what this takes where a container is itself run in one
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "host"]
AS_THE_CHART = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
TMP = ["--tmpfs", "/tmp:rw,mode=1777"]
FILES = ("Containerfile", ".containerignore", "pyproject.toml", "README.md", "LICENSE")
FOLDERS = ("serving", "ptft", "recipes", "requirements")


class NoContainers(Exception):  # noqa: N818 - what is absent is no error of a test
    """No image can be built here; the message says what is missing."""


def podman(
    *words: str | Path, check: bool = True, seconds: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run it."""
    done = subprocess.run(
        [*PODMAN, *map(str, words)], capture_output=True, text=True, timeout=seconds, check=False
    )
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


def inspect(image: str) -> dict[str, Any]:
    """What podman knows of an image."""
    (found,) = json.loads(podman("image", "inspect", image).stdout)
    return dict(found)


def base_image() -> str:
    """A Debian with Python, made once and kept in podman's store; or that of PTFT_TEST_BASE.

    Raises:
        NoContainers: it cannot be made here.
    """
    if os.environ.get("PTFT_TEST_CONTAINER") == "0":
        raise NoContainers("PTFT_TEST_CONTAINER=0")
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            raise NoContainers(f"{program} is not installed")
    if given := os.environ.get("PTFT_TEST_BASE"):
        return given
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return BASE
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise NoContainers("no base image: debootstrap is not installed, or this user is not root")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "root"
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise NoContainers(
                f"no base image: debootstrap: {made.stdout.strip().splitlines()[-1:]}"
            )
        archive = root.with_suffix(".tar")
        skip = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
        subprocess.run(["tar", "-C", root, *skip, "-cf", archive, "."], check=True)
        podman("import", archive, BASE)
    return BASE


def fill_context(place: Path) -> Path:
    """What the checkout holds, without what it ignores."""
    place.mkdir(parents=True)
    for name in FILES:
        shutil.copy2(REPO / name, place)
    for name in FOLDERS:
        shutil.copytree(REPO / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def build(
    tag: str, context: Path, base: str, target: str, *more: str, seconds: float = 900
) -> None:
    """Build a target, with this machine's settings of pip as secrets."""
    with tempfile.TemporaryDirectory() as place:
        podman(
            "build",
            *("--isolation", "chroot", "--network", "host", "--format", "docker"),
            *("--target", target, "--build-arg", f"BASE={base}"),
            *_pip_secrets(Path(place)),
            *more,
            *("--tag", tag, context),
            seconds=seconds,
        )


def _pip_secrets(place: Path) -> Sequence[str]:
    """This machine's index, wheels and certificate authority, for pip inside the build."""

    def setting(name: str) -> str:
        pip = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        return os.environ.get(f"PIP_{name.upper().replace('-', '_')}", done.stdout.strip())

    lines, secrets = ["[global]"], []
    if index := setting("index-url"):
        lines.append(f"index-url = {index}")
    if (wheels := setting("find-links")) and Path(wheels).is_dir():  # a CPU's torch, say
        lines.append(f"find-links = {wheels}")
        secrets += ["--volume", f"{wheels}:{wheels}:ro"]
    if authority := setting("cert"):
        lines.append("cert = /run/secrets/ca.pem")
        secrets += ["--secret", f"id=ca.pem,src={authority}"]
    (place / "pip.conf").write_text("\n".join([*lines, "# not to be found in the image", ""]))
    return [*secrets, "--secret", f"id=pip.conf,src={place / 'pip.conf'}"]


@contextmanager
def started(image: str, *more: str) -> Iterator[tuple[str, str]]:
    """Address and name of a container that is ready, started as the chart starts it but for the
    port, and stopped at the end, when it has to drain."""
    command = list(inspect(image)["Config"]["Cmd"])
    port = free_port()
    assert command[-4:] == ["--host", "0.0.0.0", "--port", "3000"]
    command[-3:] = ["127.0.0.1", "--port", str(port)]
    name = f"ptft-test-{port}"
    podman("run", "--detach", "--name", name, *LIMITS, *AS_THE_CHART, *TMP, *more, image, *command)
    try:
        deadline = time.monotonic() + 120
        url = f"http://127.0.0.1:{port}"
        while not _ready(url):
            assert time.monotonic() < deadline, podman("logs", name, check=False).stderr
            time.sleep(0.1)
        yield url, name
        podman("stop", "--time", "20", name)
        (state,) = json.loads(podman("container", "inspect", name).stdout)
        assert state["State"]["ExitCode"] != 137  # it drained, and was not killed
    finally:
        podman("rm", "--force", name, check=False)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
