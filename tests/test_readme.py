"""The README's commands, run in its order; and the pipeline script at reduced size."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ptft.recipe import dump_recipe, load_recipe
from tests.serving.server import free_port
from tests.support.loopback_hub import LoopbackHub
from tests.support.reduced import reduce
from tests.support.tiny import towers_section

TOKEN = "hf_readme"


def commands(text: str) -> list[str]:
    """Lines of the README's shell blocks, comments off."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    programs = str(Path(sys.executable).parent)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PTFT_", "HF_"))}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "HF_HOME": str(home / "hf"),
    }


def shell(line: str, where: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", line], cwd=where, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_from_pictures_to_a_service(
    repo: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """As written, but for what the README asks people to edit: the model is a tiny one."""
    lines = commands((repo / "README.md").read_text())
    way = [line for line in lines if not line.startswith(("make", "ptft show"))]
    assert [shlex.split(line)[1] for line in way[:10]] == [
        *("ls", "cp", "data", "check", "train", "evaluate", "export", "push", "pull", "verify")
    ]
    assert "bentoml serve" in way[10]
    assert all(line.startswith("curl ") for line in way[11:])

    port = free_port()
    Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(
        tmp_path / "picture.jpg"
    )
    with LoopbackHub(token=TOKEN) as hub:
        environment = {**environment, **hub.env(), "HF_TOKEN": TOKEN}
        for line in way[:10]:
            out = shell(line.replace("your-name/", "tester/"), tmp_path, environment)
            if " cp " in line:
                assert out.strip() == "shoes.yaml"
                (edited := tmp_path / "edited").mkdir()
                recipe = reduce(load_recipe(tmp_path / "shoes.yaml"), edited)
                run = recipe.run.model_copy(update={"dir": None})
                recipe = recipe.model_copy(update={"run": run, "model": towers_section()})
                (tmp_path / "shoes.yaml").write_text(dump_recipe(recipe))
    serve = f"{way[10].replace('3000', str(port))} --working-dir {repo}"
    log = (tmp_path / "service.log").open("wb")
    service = subprocess.Popen(
        ["bash", "-c", f"exec env {serve}"], cwd=tmp_path, env=environment, stdout=log, stderr=log
    )
    try:
        ready = f"curl -fsS --retry 600 --retry-delay 0 --retry-all-errors localhost:{port}/readyz"
        shell(f"for i in $(seq 600); do {ready} 2>/dev/null && break; sleep 0.1; done",
              tmp_path, environment)  # fmt: skip
        for line in way[11:]:
            answer = shell(line.replace("curl ", "curl -fsS ").replace("3000", str(port)),
                           tmp_path, environment)  # fmt: skip
            assert '"digest":"sha256:' in answer.replace(" ", "")
    finally:
        service.terminate()
        service.wait(timeout=60)
        log.close()


def test_the_pipeline_script_at_reduced_size(
    repo: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    small = "data.train=64 optim.global_batch=32 optim.samples_seen=64 optim.precision=fp32"
    environment = {**environment, "TRAIN": small, "PORT": str(free_port())}
    out = shell(f"recipes/speedrun.sh {tmp_path / 'speedrun'}", repo, environment)
    assert re.search(r"^shaded +0\.4% +[\d.]+% +[\d.]+% +[+-][\d.]+%$", out, re.MULTILINE), out
    assert re.search(r"^line +0\.4% +[\d.]+% +[\d.]+% +[+-][\d.]+%$", out, re.MULTILINE), out
    assert re.search(r"model folder .*\(sha256:[0-9a-f]{64}\)", out), out
    assert out.rstrip().splitlines()[-1].startswith("Serve it:  PTFT_MODEL=")


def test_the_readme_shows_only_commands_that_exist(repo: Path) -> None:
    from ptft.cli.main import GROUPS, VERBS

    text = (repo / "README.md").read_text()
    named = set(re.findall(r"\bptft ([a-z]+)\b", text))
    assert named <= {*VERBS, *GROUPS, "makes"}, named
    assert {path for path in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in path} <= {
        path.relative_to(repo).as_posix() for path in repo.rglob("*") if ".venv" not in path.parts
    }
