"""The commands of serving/README.md, run as they stand there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import yaml

from ptft.artifact import ModelInfo
from serving.settings import Settings
from tests.serving.server import REPO, environment, serve, serve_plain

README = (REPO / "serving" / "README.md").read_text(encoding="utf-8")


def documented(start: str) -> list[str]:
    """Words of the README's only command that begins so, settings before it left out."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    (line,) = [line for line in lines if re.match(rf"(\w+=\S+ )*{re.escape(start)}", line)]
    return [word for word in shlex.split(line) if not re.match(r"PTFT_\w+=", word)]


@pytest.fixture(scope="module")
def checkout(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a bento is built from, with the model where the README has it."""
    place = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("serving", "ptft"):
        shutil.copytree(REPO / name, place / name, ignore=ignored)
    shutil.copytree(folder, place / "model")
    return place


def test_serve_from_the_checkout(checkout: Path, info: ModelInfo, tmp_path: Path) -> None:
    program, verb, target = documented("bentoml serve serving")
    assert (program, verb) == ("bentoml", "serve")
    settings = {"PTFT_MODEL": "model", "PTFT_MODEL_DIGEST": info.digest}
    with serve(tmp_path, settings, target=target, cwd=checkout) as server:
        assert httpx.get(f"{server.url}/v1/model").json()["digest"] == info.digest


def test_build_and_serve_a_bento(checkout: Path, info: ModelInfo, tmp_path: Path) -> None:
    _, *words = documented("bentoml build")
    program = Path(sys.executable).with_name("bentoml")
    settings = environment(tmp_path, {})
    subprocess.run([program, *words], cwd=checkout, env=settings, check=True, capture_output=True)
    bentos = tmp_path / "bentoml" / "bentos" / "ptft"
    (bento,) = [path for path in bentos.iterdir() if path.is_dir()]
    held = {path.relative_to(bento / "src").parts[0] for path in (bento / "src").rglob("*.py")}
    assert held == {"serving", "ptft"}
    assert not list(bento.rglob("*model.safetensors"))
    wanted = (bento / "env" / "python" / "requirements.txt").read_text()
    entry = r"^([\w.-]+)==.*\\\n(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
    hashed = re.compile(entry, re.MULTILINE)
    packages = hashed.findall(wanted)
    assert {"onnxruntime", "bentoml"} <= set(packages) and "torch" not in packages
    # BentoML adds its own version once more, which pip takes together with the one that has hashes
    left = [line for line in hashed.sub("", wanted).splitlines() if line and line[0] != "#"]
    assert left == [f"bentoml=={version('bentoml')}"]
    _, _, target = documented("bentoml serve ptft")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with serve(tmp_path, {}, target=target, cwd=elsewhere) as server:
        assert httpx.get(f"{server.url}/v1/model").json()["digest"] == info.digest
        answer = httpx.post(f"{server.url}/v1/embed/text", json={"texts": ["a cat"]})
        assert answer.status_code == 200
        assert httpx.get(f"{server.url}/").text.startswith("<!DOCTYPE html>")


def test_serve_without_bentoml_and_with_a_key(
    checkout: Path, info: ModelInfo, tmp_path: Path
) -> None:
    python, *words = documented("python -m serving --port")
    assert words == ["-m", "serving", "--port", "3000"]
    assert python == "python"
    made = " ".join(documented("python -m serving.keys"))
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    told = subprocess.run(
        ["bash", "-c", made],
        cwd=tmp_path,
        env={**environment(tmp_path, {}), "PATH": programs, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    secret = told.stderr.split()[-1]
    settings = {"PTFT_MODEL": str(checkout / "model"), "PTFT_KEYS_FILE": str(tmp_path / "keys")}
    with serve_plain(tmp_path, settings) as server:
        (ask,) = [line for line in README.splitlines() if "authorization: Bearer $KEY" in line]
        place = server.url.removeprefix("http://")
        words = [
            word.replace("$KEY", secret).replace("localhost:3000", place)
            for word in shlex.split(ask)
        ]
        answer = subprocess.run(words, capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout)["digest"] == info.digest
        assert httpx.get(f"{server.url}/v1/model").status_code == 401


def test_every_setting_is_documented() -> None:
    rows = re.findall(r"^\| `(PTFT_\w+)` \|", README, re.MULTILINE)
    assert rows == [f"PTFT_{name.upper()}" for name in Settings.__dataclass_fields__]


def test_every_refusal_is_documented() -> None:
    """With its status, in the README's table."""
    said = {
        (status, kind)
        for statuses, kinds in re.findall(r"^\| (\d{3}[\d, ]*) \| (`.+?`) \|", README, re.MULTILINE)
        for status in statuses.split(", ")
        for kind in re.findall(r"`(\w+)`", kinds)
    }
    made = [
        tuple(found)
        for path in (REPO / "serving").glob("*.py")
        for found in re.findall(r'Refusal\(\s*(\d{3}),\s*"(\w+)"', path.read_text())
    ]
    assert len(made) > 30
    assert set(made) <= said


def test_requirements_have_no_torch() -> None:
    """Every module that the service imports comes with its requirements."""
    files = [REPO / "serving" / name for name in ("requirements.txt", "image.txt")]
    assert "-r image.txt" in files[0].read_text().splitlines()
    lines = [line for file in files for line in file.read_text().splitlines()]
    names = {re.split(r"[><=]", line)[0] for line in lines if line and line[0] not in "#-"}
    assert not names & {"torch", "transformers", "timm", "open_clip_torch", "onnx"}
    bento = yaml.safe_load((REPO / "serving" / "bentofile.yaml").read_text())
    assert bento["python"]["requirements_txt"] == "serving/requirements.lock"
