"""The init container's command, run with its own environment against a Hub on this machine."""

import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from huggingface_hub import HfApi

from ptft.artifact import read_model_info
from ptft.onnx.served import read_parts
from tests.support.loopback_hub import LoopbackHub

from .conftest import ChartUnderTest, Release, environment

REPO = "tester/birds"


def publish(hub: LoopbackHub, folder: Path) -> str:
    """Put a model folder into a private repository; returns the commit."""
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo(REPO, private=True)
    return str(api.upload_folder(repo_id=REPO, folder_path=folder).oid)


def run_pull(
    release: Release, root: Path, secrets: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run it with the container's mounts below ``root`` and with ``secrets`` as key -> value."""
    mounts = [mount["mountPath"] for mount in release.pull["volumeMounts"]]

    def below_root(text: str) -> str:
        inside = any(text == mount or text.startswith(f"{mount}/") for mount in mounts)
        return f"{root}{text}" if inside else text

    for mount in mounts:
        Path(below_root(mount)).mkdir(parents=True, exist_ok=True)
    variables: dict[str, str] = {}
    for name, value in environment(release.pull).items():
        variables[name] = _reveal(value, secrets) if isinstance(value, dict) else below_root(value)
    program, *arguments = release.pull["command"]
    assert program == "ptft"
    script = "import sys; from ptft.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", script, *map(below_root, arguments)]
    repository = Path(__file__).resolve().parents[2]
    variables["PYTHONPATH"] = str(repository)  # where the image has it installed
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)


def _reveal(source: dict[str, Any], secrets: dict[str, str]) -> str:
    reference = source["secretKeyRef"]
    return secrets[f"{reference['name']}/{reference['key']}"]


@pytest.fixture
def hub() -> Any:
    with LoopbackHub() as running:
        yield running


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own upload
def test_pull_brings_the_pinned_model_to_where_it_is_served(
    ptft_chart: ChartUnderTest, hub: LoopbackHub, classifier_folder: Path, tmp_path: Path
) -> None:
    commit = publish(hub, classifier_folder)
    settings = {
        "model.source": "hub",
        "model.hub.repo": REPO,
        "model.hub.revision": commit,
        "model.hub.endpoint": hub.url,
        "model.hub.tokenSecret.name": "hub",
        "model.hub.extraEnv": [{"name": "HF_HUB_DISABLE_XET", "value": "1"}],
    }
    release = ptft_chart.render(settings)
    root = tmp_path / "container"
    denied = run_pull(release, root, {"hub/token": "hf_wrong"})
    assert denied.returncode == 1 and REPO in denied.stderr

    for _ in range(2):  # a container that is started again finds the model and is content
        result = run_pull(release, root, {"hub/token": hub.token})
        assert result.returncode == 0, result.stderr

    pulled, served = (
        next(mount for mount in container["volumeMounts"] if mount["name"] == "model")
        for container in (release.pull, release.server)
    )
    folder = PurePosixPath(pulled["mountPath"]) / served["subPath"]  # what the server mounts
    found = read_model_info(Path(f"{root}{folder}"))
    assert found == read_model_info(classifier_folder)
    parts = read_parts(Path(f"{root}{folder}"))
    assert parts is not None and parts.precision == ("fp32",)
    assert "model.safetensors" in parts.absent  # which the service never reads
    mounts = {mount["mountPath"] for mount in release.pull["volumeMounts"]}
    assert {f"/{path.name}" for path in root.iterdir()} == mounts
    # the cache holds the download, not /tmp; what is there is a note of which model was tried
    left = {path.relative_to(root / "tmp") for path in (root / "tmp").rglob("*") if path.is_file()}
    assert {path.parts[:3] for path in left} <= {(".cache", "ptft", "held")}, left
