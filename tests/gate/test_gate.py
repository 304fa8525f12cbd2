"""The gate against real models and a running service: what is refused, and in which words."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ptft.artifact import FolderFiles, read_model_info
from ptft.cli.main import app
from ptft.errors import PtftError, SignatureError, UsageError
from ptft.gate import read_probe_set
from ptft.gate.answering import FolderAnswers, ServiceAnswers
from ptft.gate.watch import Counts, read_counts
from ptft.signing import key_id, sign_folder
from tests.serving.server import REPO, Server
from tests.support.keys import make_key


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["gate", *map(str, words)])


def test_a_good_model_passes(good: Path, labelled: Path, live: Server) -> None:
    digest = read_model_info(good).digest
    bounds = ("--at-least", "top1=0.9", "--drop", "top1=0.05", "--at-least", "agreement=0.99")
    done = run(good, "--digest", digest, "--probe", labelled, *bounds, "--live", live.url)
    assert done.exit_code == 0, done.output
    lines = [line.split()[:2] for line in done.stdout.splitlines()]
    names = ["digest", "golden", "live", "top1", "top1", "mean_per_class", "agreement"]
    assert lines == [["ok", name] for name in names]
    assert "1; allowed: at least 0.95, 0.05 below the live release's 1" in done.stdout
    assert "refused" not in done.stderr


def test_a_worse_model_is_refused_in_one_line(worse: Path, labelled: Path, live: Server) -> None:
    floor = run(worse, "--probe", labelled, "--at-least", "top1=0.9")
    below = run(worse, "--probe", labelled, "--drop", "mean_per_class=0.02", "--live", live.url)
    for done, words in (
        (floor, "top1 0.{}; allowed: at least 0.9"),
        (below, "mean_per_class 0.{}; allowed: at least 0.98, 0.02 below the live release's 1"),
    ):
        assert done.exit_code == 1
        (line,) = [one for one in done.stderr.splitlines() if one.startswith("ptft: refused")]
        start, end = words.split("{}")
        assert start in line
        assert line.endswith(end)


def test_captions(good: Path, worse: Path, captioned: Path, live: Server) -> None:
    done = run(good, "--probe", captioned, "--drop", "t2i_recall@1=0", "--live", live.url, "--json")
    found = json.loads(done.stdout)
    assert found["ok"], found
    names = [one["name"] for one in found["checks"]]
    assert names[3:] == [
        *(f"{way}_recall@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)),
        "agreement",
    ]
    without = run(good, "--live", live.url, "--at-least", "agreement=1")  # on the golden inputs
    other = run(worse, "--live", live.url, "--at-least", "agreement=1")
    assert (without.exit_code, other.exit_code) == (0, 1), without.output
    assert "ptft: refused: agreement 0" in other.stderr


def test_both_ways_of_asking_answer_alike(good: Path, labelled: Path, live: Server) -> None:
    probe = read_probe_set(labelled)
    here, there = FolderAnswers(good, "fp32", 1), ServiceAnswers(live.url)
    labels = ["owl", "pear"]  # no class of the head: zero-shot
    asked = probe.names, probe.pictures
    np.testing.assert_allclose(here.images(*asked), there.images(*asked), rtol=0, atol=1e-5)
    assert here.classes(*asked, probe.classes) == there.classes(*asked, probe.classes)
    assert here.classes(*asked, labels) == there.classes(*asked, labels)
    there.close()


def test_a_model_has_to_be_signed_where_a_key_is_given(good: Path, tmp_path: Path) -> None:
    mine = make_key(tmp_path / "mine.pem").with_suffix(".pub")
    other = make_key(tmp_path / "other.pem").with_suffix(".pub")
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    unsigned = run(folder, "--require-signature", mine)
    assert isinstance(unsigned.exception, SignatureError)
    assert f"{folder}: not signed" in str(unsigned.exception)
    sign_folder(folder, tmp_path / "mine.pem")
    signed = run(folder, "--require-signature", mine)
    assert signed.exit_code == 0, signed.output
    assert f"ok       signature      by key {key_id(mine)}" in signed.stdout
    assert isinstance(run(folder, "--require-signature", other).exception, SignatureError)
    service = run("http://127.0.0.1:9", "--require-signature", mine)
    assert isinstance(service.exception, UsageError)
    assert "of a model that is run here" in str(service.exception)


def test_other_bytes_and_other_models(good: Path, worse: Path, tmp_path: Path) -> None:
    wrong = run(good, "--digest", read_model_info(worse).digest)
    assert wrong.exit_code == 1
    assert f"digest is {read_model_info(good).digest}; allowed: sha256:" in wrong.stderr
    copy = tmp_path / "model"
    shutil.copytree(good, copy)
    tower = copy / FolderFiles.TEXT_ONNX
    data = bytearray(tower.read_bytes())
    data[len(data) // 2] ^= 1
    tower.write_bytes(data)
    damaged = run(copy)
    assert damaged.exit_code == 1
    assert isinstance(damaged.exception, PtftError)
    assert FolderFiles.TEXT_ONNX in str(damaged.exception)
    (copy / FolderFiles.TEXT_ONNX).write_bytes((good / FolderFiles.TEXT_ONNX).read_bytes())
    for name in (FolderFiles.OPEN_CLIP_WEIGHTS, FolderFiles.CARD):
        (copy / name).unlink(missing_ok=True)  # an image need not carry them
    assert run(copy).exit_code == 0


def test_a_running_service_beside_another(labelled: Path, live: Server) -> None:
    beside = ("--live", live.url, "--watch", "0.5", "--probe", labelled)
    bounds = ("--at-most", "errors=0", "--at-most", "slower=100", "--at-most", "drift=0")
    done = run(live.url, *beside, *bounds)
    assert done.exit_code == 0, done.output
    ok = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert "0 of " in ok["errors"]
    assert "times: 95 % within" in ok["slower"]
    slow = run(live.url, *beside, "--at-most", "slower=0.001")
    assert slow.exit_code == 1
    assert "ptft: refused: slower " in slow.stderr


def test_counts_of_a_scrape() -> None:
    counts = Counts()
    text = """# HELP ptft_requests_total Requests answered
ptft_requests_total{route="embed_text",status="200"} 8.0
ptft_requests_total{route="embed_image",status="200"} 2.0
ptft_requests_total{route="embed_text",status="503"} 1.0
ptft_request_seconds_bucket{le="0.1",route="embed_text"} 9.0
ptft_request_seconds_bucket{le="+Inf",route="embed_text"} 10.0
ptft_drift_moved{kind="image"} 1.0
ptft_drift_moved{kind="text"} NaN
"""
    read_counts(text, counts)
    read_counts(text, counts)  # of a second pod
    assert counts.requests == {"200": 20, "503": 2}
    assert counts.buckets == {0.1: 18, float("inf"): 20}
    assert counts.moved == {"image"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at-least", "top=1", "--probe", "P"), "no figure 'top'; did you mean 'top1'?"),
        (("--at-least", "top1", "--probe", "P"), "allowed: FIGURE=VALUE"),
        (("--at-least", "top1=80", "--probe", "P"), "'80'; allowed: 0 to 1"),
        (("--at-least", "top1=nan", "--probe", "P"), "'nan'; allowed: 0 to 1"),
        (("--at-least", "top1=0.8"), "--probe is needed"),
        (("--drop", "top1=0.1", "--probe", "P"), "--live is needed"),
        (("--at-least", "t2i_recall@1=0.1", "--probe", "P"), "the probe set has labels"),
        (("--at-most", "errors=0"), "--watch SECONDS is needed"),
        (("--watch", "1"), "--watch needs two services"),
        (("--live", "localhost:3000"), "--live localhost:3000: allowed: http://"),
        (("--precision", "fp8"), "--precision fp8: allowed: fp16, fp32, int8"),
    ],
)
def test_what_cannot_be_held(good: Path, labelled: Path, words: tuple[str, ...], said: str) -> None:
    done = run(good, *(str(labelled) if word == "P" else word for word in words))
    assert isinstance(done.exception, PtftError)
    assert done.exception.exit_code == 2
    assert said in str(done.exception)


def test_a_service_that_is_gone(good: Path, labelled: Path) -> None:
    done = run(good, "--probe", labelled, "--drop", "top1=0.1", "--live", "http://127.0.0.1:9")
    assert isinstance(done.exception, PtftError)
    assert "http://127.0.0.1:9" in str(done.exception)


def test_it_runs_where_there_is_no_torch(good: Path, labelled: Path) -> None:
    absent = (
        "import sys\nfor name in ('torch', 'transformers', 'pyarrow'): sys.modules[name] = None"
    )
    code = f"{absent}\nfrom ptft.cli.main import main\nmain()"
    words = ["gate", str(good), "--probe", str(labelled), "--at-least", "top1=1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
