"""The image of the Containerfile: built, run as the chart runs it, and asked one question.

On two busy cores this takes about three minutes the first time: one for the base image, which
podman then keeps, and one and a half for what pip installs, which it keeps until the requirements
change. Afterwards it takes half a minute. PTFT_TEST_BASE names another base image,
PTFT_TEST_CONTAINER=0 leaves the tests out.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from ptft.artifact import FolderFiles, ModelInfo
from ptft.model import DualEncoder
from tests.serving.conftest import checkpoint_texts
from tests.serving.server import REPO, free_port

BASE = "localhost/ptft-test-base:bookworm"
IMAGE = "localhost/ptft-test"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
PODMAN = ["podman", "--runtime", "runc"]
# what this takes where a container is itself run in one
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "host"]
AS_THE_CHART = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
TMP = ["--tmpfs", "/tmp:rw,mode=1777"]
CONTEXT = ("Containerfile", ".containerignore", "pyproject.toml", "README.md", "LICENSE")


def podman(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PODMAN, *map(str, words)], capture_output=True, text=True, timeout=900, check=False
    )
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Debian with Python, made once and kept in podman's store."""
    if os.environ.get("PTFT_TEST_CONTAINER") == "0":
        pytest.skip("PTFT_TEST_CONTAINER=0")
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if given := os.environ.get("PTFT_TEST_BASE"):
        return given
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return BASE
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.skip("no base image: debootstrap is not installed, or this user is not root")
    root = tmp_path_factory.mktemp("base") / "root"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no base image: debootstrap: {made.stdout.strip().splitlines()[-1:]}")
    archive = root.with_suffix(".tar")
    skip = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
    subprocess.run(["tar", "-C", root, *skip, "-cf", archive, "."], check=True)
    podman("import", archive, BASE)
    shutil.rmtree(root)
    archive.unlink()
    return BASE


def pip_secrets(place: Path) -> list[str]:
    """This machine's index and certificate authority, for pip inside the build."""

    def setting(name: str) -> str:
        pip = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        return os.environ.get(f"PIP_{name.upper().replace('-', '_')}", done.stdout.strip())

    lines, secrets = ["[global]"], []
    if index := setting("index-url"):
        lines.append(f"index-url = {index}")
    if authority := setting("cert"):
        lines.append("cert = /run/secrets/ca.pem")
        secrets += ["--secret", f"id=ca.pem,src={authority}"]
    (place / "pip.conf").write_text("\n".join([*lines, "# not to be found in the image", ""]))
    return [*secrets, "--secret", f"id=pip.conf,src={place / 'pip.conf'}"]


@pytest.fixture(scope="module")
def image(base: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image with the model inside, of a context that holds what the checkout holds."""
    place = tmp_path_factory.mktemp("build")
    context = place / "context"
    context.mkdir()
    for name in CONTEXT:
        shutil.copy2(REPO / name, context)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("serving", "ptft", "recipes", "requirements"):
        shutil.copytree(REPO / name, context / name, ignore=ignored)
    shutil.copytree(folder, context / "model")
    podman(
        "build",
        *("--isolation", "chroot", "--network", "host", "--format", "docker"),
        *("--target", "bundled", "--build-arg", "PRECISION=fp32"),
        *("--build-arg", f"BASE={base}", "--build-arg", "MODEL=model"),
        *("--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc"),
        *pip_secrets(place),
        *("--tag", IMAGE, context),
    )
    return IMAGE


@pytest.fixture(scope="module")
def running(image: str) -> Iterator[tuple[str, str]]:
    """Its address and the container, started as the chart starts it but for the port."""
    (config,) = json.loads(podman("image", "inspect", image).stdout)
    command = config["Config"]["Cmd"]
    port = free_port()
    assert command[-4:] == ["--host", "0.0.0.0", "--port", "3000"]
    command[-3:] = ["127.0.0.1", "--port", str(port)]
    name = f"ptft-test-{port}"
    run = ["run", "--detach", "--name", name, *LIMITS, *AS_THE_CHART, *TMP]
    podman(*run, image, *command)
    try:
        deadline = time.monotonic() + 120
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, podman("logs", name, check=False).stderr
            time.sleep(0.2)
        yield url, name
        podman("stop", "--time", "20", name)
        (state,) = json.loads(podman("container", "inspect", name).stdout)
        assert state["State"]["ExitCode"] != 137  # it drained, and was not killed
    finally:
        podman("rm", "--force", name, check=False)


def test_a_base_that_may_be_another_image_tomorrow_is_refused(base: str, tmp_path: Path) -> None:
    floating = "example.org/ptft-test-base:bookworm"
    podman("tag", base, floating)
    shutil.copy2(REPO / "Containerfile", tmp_path)
    (tmp_path / "serving").mkdir()
    shutil.copy2(REPO / "serving" / "requirements.lock", tmp_path / "serving")
    build = ["build", "--isolation", "chroot", "--network", "host", "--target", "requirements"]
    done = podman(*build, "--build-arg", f"BASE={floating}", tmp_path, check=False)
    podman("untag", base, floating, check=False)
    assert done.returncode != 0
    assert (
        f"BASE={floating}: allowed: NAME@sha256:..., or localhost/NAME" in done.stdout + done.stderr
    )
    without = podman(*build, tmp_path, check=False)  # and no base is nobody's default
    assert without.returncode != 0


def test_it_answers(running: tuple[str, str], model: DualEncoder, info: ModelInfo) -> None:
    url, _ = running
    answer = httpx.post(f"{url}/v1/embed/text", json={"texts": ["a photo of a cat"]})
    assert answer.json()["digest"] == info.digest
    found = np.array([answer.json()["results"][0]["embedding"]], np.float32)
    np.testing.assert_allclose(
        found, checkpoint_texts(model, ["a photo of a cat"]), rtol=0, atol=1e-5
    )


def test_it_runs_as_the_chart_wants(running: tuple[str, str]) -> None:
    _, name = running
    code = """
import os, pathlib
print(os.getuid())
try: pathlib.Path("/app/x").touch()
except OSError as error: print(error)
print(pathlib.Path("/proc/1/status").read_text())
"""
    told = podman("exec", name, "python", "-c", code).stdout
    assert told.splitlines()[0] == "65532"
    assert "Read-only file system" in told
    assert "CapEff:\t0000000000000000" in told
    assert "NoNewPrivs:\t1" in told


def test_whoever_runs_it_without_a_cluster_can_see_that_it_lives(
    running: tuple[str, str], image: str
) -> None:
    """HEALTHCHECK's own command; the port is that of the process that the container started."""
    _, name = running
    (config,) = json.loads(podman("image", "inspect", image).stdout)
    kind, *command = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert podman("exec", name, *command, check=False).returncode == 0
    code = "import serving.probe as p, sys; sys.exit(0 if p.alive(1) else 7)"
    assert podman("exec", name, "python", "-c", code, check=False).returncode == 7


def test_it_is_small_and_says_what_is_in_it(running: tuple[str, str], image: str) -> None:
    """At most 250 MB without the model; no shell, no pip; each package stands in the bill."""
    _, name = running
    (config,) = json.loads(podman("image", "inspect", image).stdout)
    code = (
        "import pathlib as p; print(sum(f.stat().st_size for f in p.Path('/model').rglob('*.*')))"
    )
    model = int(podman("exec", name, "python", "-c", code).stdout)
    assert config["Size"] - model <= 250_000_000
    for program in ("sh", "bash", "pip", "apt"):
        assert podman("exec", name, program, check=False).returncode != 0
    path = "/usr/share/sbom/ptft.cdx.json"
    read = f"print(open({path!r}).read())"
    bill = json.loads(podman("exec", name, "python", "-c", read).stdout)
    inside = {one["name"] for one in bill["components"]}
    assert {"onnxruntime", "numpy", "libc6", "python", "ptft"} <= inside
    assert len({one["bom-ref"] for one in bill["components"]}) == len(bill["components"])


def test_what_is_inside(running: tuple[str, str], image: str) -> None:
    _, name = running
    code = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('transformers'))"
    assert podman("exec", name, "python", "-c", code).stdout.split() == ["None", "None"]
    code = "import os; print(*os.listdir('/model'), *os.listdir('/etc'), *os.listdir('/run'))"
    files = podman("exec", name, "python", "-c", code).stdout.split()
    assert {FolderFiles.INFO, FolderFiles.PARTS, FolderFiles.GOLDEN} <= set(files)
    assert FolderFiles.OPEN_CLIP_WEIGHTS not in files  # the service does not read it
    assert "pip.conf" not in files and "secrets" not in files
    (config,) = json.loads(podman("image", "inspect", image).stdout)
    labels = config["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert config["Config"]["User"] == "65532:65532"
    assert "3000/tcp" in config["Config"]["ExposedPorts"]


def test_it_can_pull(running: tuple[str, str]) -> None:
    """The chart's init container: nothing that `ptft pull` imports is missing."""
    _, name = running
    pull = ["ptft", "pull", "some/model@v1", "/tmp/pulled"]
    done = podman("exec", "--env", "HF_ENDPOINT=http://127.0.0.1:9", name, *pull, check=False)
    assert done.returncode == 1  # the Hub's trouble, told by ptft
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
