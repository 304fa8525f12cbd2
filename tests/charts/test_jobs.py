"""Jobs of the chart: training as `ptft launch` writes it, and an index that is really written."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import numpy as np
import pytest
from PIL import Image

from ptft.artifact import read_model_info
from ptft.index import read_picture_index, read_picture_index_info
from ptft.launch import LaunchFile, System, render_launch
from tests.charts.schemas import load_definitions

from .conftest import CHART, HUB, ChartUnderTest, Release, environment, named

TRAIN = {
    "jobs.train.enabled": True,
    "jobs.train.image.repository": "registry.example.org/ptft-train",
    "jobs.train.recipe": "pretrain/scenes",
}
WHOLE: dict[str, Any] = {
    **TRAIN,
    "jobs.train.nodes": 2,
    "jobs.train.gpus": 8,
    "jobs.train.hours": 12,
    "jobs.train.claim": "runs",
    "jobs.train.mirror": "s3://bucket/runs",
    "jobs.train.secret": {"name": "tokens", "keys": ["HF_TOKEN"]},
}
EMBED = {"jobs.embed.enabled": True, "jobs.embed.claim": "corpus"}


def job_of(release: Release, component: str) -> dict[str, Any]:
    """The spec of a Job, or of the Jobs of a CronJob."""
    (found,) = (
        one
        for one in release.documents
        if one["kind"] in ("Job", "CronJob")
        and one["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )
    spec: dict[str, Any] = found["spec"]
    return spec["jobTemplate"]["spec"] if found["kind"] == "CronJob" else spec


def program(release: Release, name: str = "node") -> str:
    """The shell program of a container of the training pod."""
    pod = job_of(release, "train")["template"]["spec"]
    return str(named([*pod.get("initContainers", []), *pod["containers"]], name)["args"][0])


@pytest.mark.parametrize(
    ("settings", "launch"),
    [
        (TRAIN, {}),
        (
            {**TRAIN, "jobs.train.gpus": 4, "jobs.train.graceSeconds": 60},
            {"gpus": "h100x4", "grace_seconds": 60},
        ),
        (
            WHOLE,
            {
                "gpus": "h100x8",
                "nodes": 2,
                "hours": 12,
                "mirror": "s3://bucket/runs",
                "secrets": ["HF_TOKEN"],
                "kubernetes": {"secret": "tokens", "claim": "runs"},
            },
        ),
    ],
    ids=["one rank", "one node", "two nodes"],
)
def test_training_is_what_the_launch_writes(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], launch: dict[str, Any]
) -> None:
    """One set of facts: how ranks meet, what is a preemption, which signals, which volumes."""
    ours = job_of(ptft_chart.render(settings), "train")
    image = "registry.example.org/ptft-train:0.1.0"
    told = LaunchFile.model_validate({"image": image, "runs": "/runs", **launch})
    text = render_launch("pretrain/scenes", ["optim.lr=1e-4"], told, System.KUBERNETES).text
    job = next(one for one in helm_documents(text) if one["kind"] == "Job")
    theirs = job["spec"]
    for key in ("completionMode", "completions", "parallelism", "backoffLimit"):
        assert ours[key] == theirs[key], key
    assert ours.get("activeDeadlineSeconds") == theirs.get("activeDeadlineSeconds")
    assert ours["podFailurePolicy"] == theirs["podFailurePolicy"]
    pods = [one["template"]["spec"] for one in (ours, theirs)]
    assert pods[0]["terminationGracePeriodSeconds"] == pods[1]["terminationGracePeriodSeconds"]
    assert pods[0]["restartPolicy"] == pods[1]["restartPolicy"]
    assert ("subdomain" in pods[0]) is ("subdomain" in pods[1])
    containers = [pod["containers"][0] for pod in pods]
    assert containers[0]["command"] == containers[1]["command"]
    mounts = [{one["mountPath"] for one in container["volumeMounts"]} for container in containers]
    assert mounts[1] <= mounts[0]
    gpus = [one["resources"].get("limits", {}).get("nvidia.com/gpu") for one in containers]
    assert str(gpus[0]) == str(gpus[1])
    lines = [plain(container["args"][0]) for container in containers]
    assert lines[0] == lines[1]


def helm_documents(text: str) -> list[dict[str, Any]]:
    import yaml

    return list(yaml.safe_load_all(text))


def plain(text: str) -> list[str]:
    """The words of a program, but for names that each has of its own."""
    words = text.replace("'", "").replace('"', "").split()
    kept = []
    for word in words:
        if word.startswith(("optim.lr", "run.dir", "run.mirror=")):
            continue
        if word.startswith(("$JOB_NAME-0.", "scenes-0.")) or re.match(r"[\w-]+-0\.[\w-]+$", word):
            word = "HEAD"
        kept.append(re.sub(r"jobs\.train\.secret names it|the launch file names it.*", "", word))
    text = " ".join(kept)
    return re.sub(r"is not set, and .*?}", "is not set}", text).split()


def test_ranks_find_each_other(ptft_chart: ChartUnderTest) -> None:
    for settings in (WHOLE, {**WHOLE, "jobs.train.schedule": "0 3 * * *"}):
        release = ptft_chart.render(settings)
        pod = job_of(release, "train")["template"]
        service = next(
            one
            for one in release.documents
            if one["kind"] == "Service" and one["spec"].get("clusterIP") == "None"
        )
        assert pod["spec"]["subdomain"] == service["metadata"]["name"] == "demo-ptft-train"
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert '--master-addr "$JOB_NAME-0.demo-ptft-train"' in program(release)
        field = environment(pod["spec"]["containers"][0])["JOB_NAME"]["fieldRef"]["fieldPath"]
        assert field == "metadata.labels['batch.kubernetes.io/job-name']"
    alone = ptft_chart.render(TRAIN)
    assert "--master-addr" not in program(alone)
    assert [one["kind"] for one in alone.documents].count("Service") == 1


def test_another_job_has_another_name(ptft_chart: ChartUnderTest) -> None:
    """For a Job cannot be changed, and an upgrade with nothing new starts none."""

    def name(settings: dict[str, Any]) -> str:
        alone = {**TRAIN, "gate.enabled": False, **settings}
        return str(ptft_chart.render(alone).get("Job")["metadata"]["name"])

    assert name({}) == name({"replicas": 3})
    assert name({}) != name({"jobs.train.settings": ["optim.lr=1e-4"]})
    cron = ptft_chart.render({**TRAIN, "jobs.train.schedule": "@daily"}).get("CronJob")
    assert cron["metadata"]["name"] == "demo-ptft-train"
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"


def test_a_model_is_pushed_after_the_gate(ptft_chart: ChartUnderTest) -> None:
    gate = ["--at-least=top1=0.8", "--live=http://demo-ptft"]
    settings = {
        **HUB,
        **TRAIN,
        "jobs.train.fromServed": True,
        "jobs.train.publish": {"repo": "example/birds", "gate": gate, "licence": "mit"},
    }
    release = ptft_chart.render(settings)
    lines = program(release, "publish").splitlines()
    verbs = [line.removeprefix("exec ").split()[:2] for line in lines if "ptft " in line]
    assert verbs == [["ptft", "export"], ["ptft", "gate"], ["ptft", "push"]]
    assert lines[0] == "set -eu"  # what fails stops the rest
    assert "'--at-least=top1=0.8' '--live=http://demo-ptft' || exit 3" in lines[3]
    assert "--license mit" in lines[4]
    spec = job_of(release, "train")
    failed = next(one for one in spec["podFailurePolicy"]["rules"] if one["action"] == "FailJob")
    assert failed["onExitCodes"]["values"] == [3]
    trained = program(release)
    assert f"init.from={settings['model.hub.repo']}@{settings['model.hub.revision']}" in trained
    assert 'run.dir="/runs/$JOB_NAME"' in trained


@pytest.mark.parametrize("value", ["a=$(reboot)", "a=`id`", 'a="; id; "', "a=b c", "a=é $HOME"])
def test_a_setting_is_no_shell(ptft_chart: ChartUnderTest, value: str) -> None:
    """Bash gives the program the setting as it was written."""
    text = program(ptft_chart.render({**TRAIN, "jobs.train.settings": [value]}))
    shown = text.replace("exec ptft", "exec printf '%s\\n'")
    done = subprocess.run(
        ["bash", "-c", shown], capture_output=True, text=True, env={"JOB_NAME": "j"}, timeout=60
    )
    assert value in done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**TRAIN, "jobs.train.image.repository": ""}, "jobs.train.image.repository: missing"),
        ({**TRAIN, "jobs.train.recipe": ""}, "needs one of jobs.train.recipe and"),
        ({**TRAIN, "jobs.train.recipeConfigMap.name": "a"}, "needs one of jobs.train.recipe and"),
        ({**TRAIN, "jobs.train.fromServed": True}, "needs model.source: hub, and it is image"),
        ({**TRAIN, "jobs.train.secret.name": "a"}, "name and keys belong together"),
        ({**TRAIN, "jobs.train.nodes": 2}, r"jobs.train.nodes \(2\) needs jobs.train.claim"),
        (
            {**TRAIN, "jobs.train.resources.limits.memory": "1Gi"},
            r"jobs.train.resources.limits.memory \(1Gi\) must not be below",
        ),
        ({"jobs.embed.enabled": True}, "jobs.embed.claim: missing"),
        (
            {**EMBED, "jobs.embed.index": "pictures/index"},
            r"jobs.embed.index \(pictures/index\) must not lie in jobs.embed.pictures",
        ),
    ],
)
def test_what_a_job_lacks_is_said(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=message):
        ptft_chart.render(settings)


@pytest.mark.parametrize("setting", ["optim.lr", "a=it's", "a=b\nc", "=b", "; id"])
def test_a_setting_that_is_none_is_refused(ptft_chart: ChartUnderTest, setting: str) -> None:
    with pytest.raises(helm.HelmValuesError, match="/jobs/train/settings/0"):
        ptft_chart.render({**TRAIN, "jobs.train.settings": [setting]})


def test_kubernetes_knows_the_label_of_a_job() -> None:
    """The name of the Job, by which its pods find each other, is a label since 1.27."""
    known = load_definitions()["io.k8s.api.batch.v1.JobSpec"]["properties"]
    assert {"completionMode", "podFailurePolicy"} <= known.keys()


def run_embed(release: Release, model: Path, corpus: Path) -> subprocess.CompletedProcess[str]:
    """The command of the Job, with its claim at ``corpus``."""
    pod = job_of(release, "embed")["template"]["spec"]
    container = named(pod["containers"], "embed")
    _, *words = container["command"]
    words = [word.replace("/corpus", str(corpus)) if word[0] == "/" else word for word in words]
    variables = {
        name: value for name, value in environment(container).items() if isinstance(value, str)
    }
    variables |= {"PTFT_MODEL": str(model), "PTFT_THREADS": "1", "PATH": os.environ["PATH"]}
    variables |= {"HOME": str(corpus.parent), "PYTHONPATH": str(CHART.parents[1])}
    return subprocess.run(
        [sys.executable, *words], env=variables, capture_output=True, text=True, timeout=300
    )


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_an_index_is_written_and_kept_up(
    ptft_chart: ChartUnderTest, classifier_folder: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "pictures" / "birds").mkdir(parents=True)
    for number in range(5):
        (corpus / "pictures" / "birds" / f"{number}.png").write_bytes(picture(number))
    (corpus / "pictures" / "broken.jpg").write_bytes(b"no picture")
    (corpus / "pictures" / "notes.txt").write_text("no picture either")
    digest = read_model_info(classifier_folder).digest
    release = ptft_chart.render({**EMBED, "model.digest": digest})

    first = run_embed(release, classifier_folder, corpus)
    assert first.returncode == 0, first.stderr
    assert f"5 pictures; model {digest}" in first.stdout
    assert "broken.jpg" in first.stderr  # named, and left out
    assert read_picture_index_info(corpus / "index").count == 5

    (corpus / "pictures" / "birds" / "0.png").unlink()
    (corpus / "index.new").mkdir()  # of a job that was ended
    second = run_embed(release, classifier_folder, corpus)
    assert "4 pictures" in second.stdout, second.stderr
    assert {path.name for path in corpus.iterdir()} == {"pictures", "index"}

    other = ptft_chart.render({**EMBED, "model.digest": "sha256:" + "1" * 64})
    refused = run_embed(other, classifier_folder, corpus)
    assert refused.returncode == 1
    assert len(refused.stderr.strip().splitlines()) == 1 and digest in refused.stderr
    read_picture_index(corpus / "index", digest=digest, precision="fp32")  # as it was
