"""What the systems' own clients make of it: hf here, SkyPilot and Kubeflow where they are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.errors import LaunchError, UsageError
from ptft.launch import Form, System, submit, write_rendered
from ptft.launch.hf_jobs import hf_jobs_commands
from tests.clients.environments import LAUNCHERS, cache_folder, find
from tests.launch.parts import Recorder, rendered
from tests.support.loopback_hub import LoopbackHub

SCENES = "pretrain/scenes"
HERE = Path(__file__).resolve().parents[1]
BUCKET = {"mirror": "hf://buckets/org/runs/a", "secrets": ["HF_TOKEN", "OTHER"]}


def hf(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_hf_reads_the_job_as_it_is_meant() -> None:
    """Its dry run asks no network."""
    (command,) = hf_jobs_commands(rendered(SCENES, on=System.HF_JOBS, **BUCKET).job)
    place = command.index("run") + 1
    words = [*command[:place], "--dry-run", *command[place:]]
    done = hf(*words, HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_x", OTHER="y")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    told = {words[0]: words[1] for words in lines if len(words) == 2}
    assert told["flavor"] == "a100x8"
    assert told["timeout"] == "720m"
    assert told["volumes"] == "hf://buckets/org/runs:/mirror"
    assert "run.mirror=/mirror/a/scenes" in done.stdout


@pytest.mark.parametrize("count", [1, 2])
def test_the_hub_is_asked_for_what_was_written(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rendered(SCENES, "optim.lr=1e-4", on=System.HF_JOBS, **BUCKET, nodes=count)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with LoopbackHub(token="hf_test") as hub:
        for key, value in {**hub.env(), "OTHER": "a value", "PATH": programs}.items():
            monkeypatch.setenv(key, value)
        submit(made, tmp_path)
        asked = hub.calls("/api/jobs/", "POST")
        jobs = hub.jobs
    assert [call.path for call in asked] == ["/api/jobs/tester"] * count
    assert len(jobs) == count
    for node, job in enumerate(jobs):
        assert job["dockerImage"] == made.job.launch.image
        assert job["flavor"] == "a100x8"
        assert job["timeoutSeconds"] == 43_200
        assert job["environment"] == {"NCCL_DEBUG": "WARN"}
        assert job["secrets"] == {"HF_TOKEN": "hf_test", "OTHER": "a value"}
        (volume,) = job["volumes"]
        assert (volume["type"], volume["source"]) == ("bucket", "org/runs")
        assert volume["mountPath"] == "/mirror"
        assert job["command"][:2] == ["bash", "-c"]
        assert "optim.lr=1e-4 run.dir=/tmp/ptft/scenes" in job["command"][2]
        assert ("--node-rank" in job["command"][2]) is (count > 1)
        if count > 1:
            assert f"--node-rank {node} " in job["command"][2]
    written = (tmp_path / made.file).read_text()
    assert "a value" not in written
    assert "hf_test" not in written


SUBMITTED = {
    System.SKYPILOT: ["sky", "jobs", "launch", "--yes", "--detach-run", "--secret", "HF_TOKEN"],
    System.SLURM: ["sbatch"],
    System.KUBERNETES: ["kubectl", "apply", "-f"],
}


@pytest.mark.parametrize("on", SUBMITTED)
def test_each_is_handed_to_its_client(
    on: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SUBMITTED[on][0]
    recorder = Recorder(tmp_path / "a", **{client: "print(open(sys.argv[-1]).read())"})
    monkeypatch.setenv("PATH", recorder.env["PATH"])
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    made = rendered(SCENES, on=on)
    submit(made, tmp_path / "kept")
    (called,) = recorder.called
    assert called == [*SUBMITTED[on], str(tmp_path / "kept" / made.file)]
    submit(made)
    assert not Path(recorder.called[1][-1]).exists()


@pytest.mark.parametrize("on", System)
def test_a_client_that_is_missing_is_named(
    on: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"(sky|sbatch|kubectl|hf) is not installed here"):
        submit(rendered(SCENES, on=on))


def test_a_client_that_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path / "a", sbatch="sys.exit(3)", sky="")
    monkeypatch.setenv("PATH", recorder.env["PATH"])
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(LaunchError, match="ended with 3"):
        submit(rendered(SCENES, on=System.SLURM))
    with pytest.raises(UsageError, match="secrets: 'HF_TOKEN': not set here"):
        submit(rendered(SCENES, on=System.SKYPILOT))


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    (tmp_path / "cloud.yaml").write_text("gpus: h100x8\nspot: true\n")
    words = ["launch", SCENES, "--on", "slurm", "--with", str(tmp_path / "cloud.yaml")]
    shown = CliRunner().invoke(app, [*words, "--set", "hours=2", "optim.lr=1e-4"])
    assert shown.exit_code == 0
    assert "#SBATCH --time=120\n" in shown.stdout
    assert "warning: spot: True: not used" in shown.stderr
    assert "warning" not in shown.stdout
    told = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "jobs")])
    assert told.stdout.strip() == str(tmp_path / "jobs" / "scenes.sbatch")
    wrong = CliRunner().invoke(app, [*words, "--form", "jobset"])
    assert isinstance(wrong.exception, UsageError)
    assert "--form jobset: of kubernetes alone" in str(wrong.exception)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SkyPilot and Kubeflow's models understand of files, by the file's name."""
    environment = find(LAUNCHERS, cache_folder())
    if environment is None:
        pytest.skip(
            "the environment of SkyPilot and Kubeflow is not there; `make clients` makes it"
        )
    folder = tmp_path_factory.mktemp("launchers")
    for number, changes in enumerate(({}, {"nodes": 2, "gpus": "h100x8"}, {"gpus": None})):
        for on, form in (
            (System.SKYPILOT, Form.JOB),
            (System.KUBERNETES, Form.JOBSET),
            (System.KUBERNETES, Form.TRAINJOB),
        ):
            made = rendered(SCENES, f"name=n{number}", on=on, form=form, **changes)
            write_rendered(made, folder)
    files = sorted(str(path) for path in folder.iterdir())
    command = [environment / "bin" / "python", HERE / "clients" / "with_launchers.py", *files]
    env = {**os.environ, "HOME": str(folder), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {Path(name).name: {"file": name, "told": told} for name, told in found.items()}


def test_skypilot_reads_the_task_as_it_is_meant(read: dict[str, Any]) -> None:
    told = read["n1.sky.yaml"]["told"]
    assert told["nodes"] == 2
    assert told["accelerators"] == {"H100": 8}
    assert told["spot"]
    assert told["recovery"]["recover_on_exit_codes"] == [75, 143]
    assert told["recovery"]["max_restarts_on_errors"] == 3
    assert told["mounts"]["/mirror"]["source"] == "s3://bucket"
    assert told["config"] == {"docker": {"run_options": ["--user=root", "--env=HOME=/root"]}}
    assert told["run"].startswith("set -eu\n")
    assert read["n2.sky.yaml"]["told"]["accelerators"] is None
    assert len(read) == 9


def test_kubeflows_models_lose_nothing(read: dict[str, Any]) -> None:
    for name, one in read.items():
        if not name.endswith(".sky.yaml"):
            assert one["told"] == list(yaml.safe_load_all(Path(one["file"]).read_text())), name
