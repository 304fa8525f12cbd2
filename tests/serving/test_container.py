"""The image of the Containerfile: built, run as the chart runs it, and asked one question.

On two busy cores this takes about three minutes the first time: one for the base image, which
podman then keeps, and one and a half for what pip installs, which it keeps until the requirements
change. Afterwards it takes half a minute. PTFT_TEST_BASE names another base image,
PTFT_TEST_CONTAINER=0 leaves the tests out.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from ptft.artifact import FolderFiles, ModelInfo
from ptft.model import DualEncoder
from tests.serving.conftest import checkpoint_texts
from tests.support.container import (
    REPO,
    NoContainers,
    base_image,
    build,
    fill_context,
    inspect,
    podman,
    started,
)
from tests.support.whole import WHOLE

pytestmark = WHOLE
IMAGE = "localhost/ptft-test"


@pytest.fixture(scope="module")
def base() -> str:
    """A Debian with Python."""
    try:
        return base_image()
    except NoContainers as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def image(base: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image with the model inside, of a context that holds what the checkout holds."""
    context = fill_context(tmp_path_factory.mktemp("build") / "context")
    shutil.copytree(folder, context / "model")
    given = ("PRECISION=fp32", "MODEL=model", "VERSION=1.2.3", "REVISION=abc")
    words = [word for one in given for word in ("--build-arg", one)]
    build(IMAGE, context, base, "bundled", *words)
    return IMAGE


@pytest.fixture(scope="module")
def running(image: str) -> Iterator[tuple[str, str]]:
    """Its address and the container."""
    with started(image) as found:
        yield found


def test_a_base_that_may_be_another_image_tomorrow_is_refused(base: str, tmp_path: Path) -> None:
    floating = "example.org/ptft-test-base:bookworm"
    podman("tag", base, floating)
    shutil.copy2(REPO / "Containerfile", tmp_path)
    (tmp_path / "serving").mkdir()
    shutil.copy2(REPO / "serving" / "requirements.lock", tmp_path / "serving")
    words = ["build", "--isolation", "chroot", "--network", "host", "--target", "requirements"]
    done = podman(*words, "--build-arg", f"BASE={floating}", tmp_path, check=False)
    podman("untag", base, floating, check=False)
    assert done.returncode != 0
    assert (
        f"BASE={floating}: allowed: NAME@sha256:..., or localhost/NAME" in done.stdout + done.stderr
    )
    without = podman(*words, tmp_path, check=False)  # and no base is nobody's default
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
    config = inspect(image)
    kind, *command = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert podman("exec", name, *command, check=False).returncode == 0
    code = "import serving.probe as p, sys; sys.exit(0 if p.alive(1) else 7)"
    assert podman("exec", name, "python", "-c", code, check=False).returncode == 7


def test_it_is_small_and_says_what_is_in_it(running: tuple[str, str], image: str) -> None:
    """At most 250 MB without the model; no shell, no pip; each package stands in the bill."""
    _, name = running
    config = inspect(image)
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
    config = inspect(image)
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
