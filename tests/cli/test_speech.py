"""What takes a while is told of: by lines in a log, by a bar on a terminal, as JSON to machines."""

import ast
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from ptft import speech
from ptft.cli.console import Steps, TrainingBar
from ptft.cli.speech import LogFormat, fail, listen, stderr
from ptft.export import export_model
from ptft.model import save_model
from ptft.speech import LOG, Bar, advance, counted, said_by_another, say, tell, warn
from ptft.verify import verify
from tests.support.tiny import arch_section, build

Heard = Callable[[], str]


@pytest.fixture
def heard(capsys: pytest.CaptureFixture[str]) -> Iterator[Heard]:
    """What stderr has had, where people listen to a stream."""
    end = listen(LogFormat.TEXT, quiet=False, verbose=False)
    yield lambda: capsys.readouterr().err
    end()


def test_a_log_has_a_line_a_step_and_of_a_long_one_how_far_it_is(heard: Heard) -> None:
    with Steps() as steps:
        steps("reading a model from a folder with a long name [of brackets]")
        steps.remind()
        steps("measuring it")
        for done in (10, 20):
            steps.count("val images", done, 2000)
        steps.remind()
        steps.count("texts", 1, 5)
    assert heard().splitlines() == [
        "reading a model from a folder with a long name [of brackets]",
        "reading a model from a folder with a long name [of brackets]: 0 s so far",
        "measuring it",
        "2,000 val images",
        "measuring it: 20 of 2,000 val images, 0 s so far",
        "5 texts",
    ]


def test_a_terminal_has_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with Steps(console) as steps:
        steps("measuring it")
        steps.count("val images", 10, 20)
        steps._bar.refresh()
    assert "10/20" in out.getvalue()
    assert "val images" in out.getvalue()


def test_an_error_ends_it_and_comes_through() -> None:
    with pytest.raises(KeyError), Steps(Console(file=io.StringIO())) as steps:
        steps("reading")
        raise KeyError("x")
    assert steps._over.is_set()


def test_a_quiet_command_says_what_may_be_wrong_and_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    end = listen(LogFormat.TEXT, quiet=True, verbose=False)
    tell("a line")
    stderr().print("a table")
    warn("a split is small")
    end()
    assert capsys.readouterr().err == "warning: a split is small\n"


@pytest.mark.parametrize("verbose", [False, True])
def test_one_that_says_more_says_each_report_of_progress(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    end = listen(LogFormat.TEXT, quiet=False, verbose=verbose)
    advance(LOG, Bar("scenes", 16, 64, "loss 2.5"), loss=2.5)
    end()
    assert capsys.readouterr().err == ("scenes: 16 of 64  loss 2.5\n" if verbose else "")


def test_machines_read_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    end = listen(LogFormat.JSON, quiet=False, verbose=True)
    say(LOG, "seen \x1b[31m", seen=16, time="not of the clock")
    warn("a split is small")
    advance(LOG, Bar("scenes", 16, 64), loss=2.5)
    stderr().print("a table")
    end()
    fail("no such recipe", exit_code=2)
    first, second, third, last = (json.loads(x) for x in capsys.readouterr().err.splitlines())
    when = datetime.fromisoformat(first.pop("time"))
    assert when.tzinfo == UTC
    assert first == {"level": "INFO", "logger": "ptft", "message": "seen \\x1b[31m", "seen": 16}
    assert (second["level"], second["message"]) == ("WARNING", "a split is small")
    assert (third["level"], third["done"], third["total"], third["loss"]) == ("DEBUG", 16, 64, 2.5)
    assert (last["level"], last["exit_code"]) == ("ERROR", 2)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock finds it a second later."""
    seconds = iter(range(1_000_000))
    monkeypatch.setattr(speech.time, "monotonic", lambda: float(next(seconds)))


@pytest.mark.usefixtures("slow")
def test_what_is_counted_has_a_rate_and_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    end = listen(LogFormat.TEXT, quiet=False, verbose=False)
    assert list(counted("abcdefghijklmnopqrstuvwxyz", "opening shards", 26)) == list(
        "abcdefghijklmnopqrstuvwxyz"
    )
    end()
    assert capsys.readouterr().err.splitlines() == [
        "opening shards: 10 of 26  0.9 a second  18 s left",
        "opening shards: 21 of 26  1.0 a second  5 s left",
    ]
    for log_format in LogFormat:
        end = listen(log_format, quiet=True, verbose=False)
        assert sum(counted(range(30), "opening shards", 30)) == 435
        end()
        assert capsys.readouterr().err == ""
    end = listen(LogFormat.TEXT, quiet=False, verbose=True)
    assert list(counted([1, 2], "opening shards", 2)) == [1, 2]
    with said_by_another(True):
        assert sum(counted(range(30), "opening shards", 30)) == 435
    assert capsys.readouterr().err == "", "it took no time, or another says it"
    for number in counted(range(5), "opening shards", 5):
        if number == 3:
            break
    end()
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "opening shards: 3 of 5"


@pytest.mark.usefixtures("slow")
def test_machines_read_the_rate_and_see_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    end = listen(LogFormat.JSON, quiet=False, verbose=False)
    assert sum(counted(range(15), "opening shards", 15)) == 105
    end()
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["what"], line["done"], line["total"]) == ("opening shards", 10, 15)
    assert line["rate"] == pytest.approx(10 / 11)


def test_a_bar_within_another_is_there_while_it_lasts() -> None:
    bar = TrainingBar(Console(file=io.StringIO(), force_terminal=True, width=80))
    bar.show(Bar("scenes", 16, 64))
    bar.show(Bar("opening shards", 1, 9))
    assert [(task.description, task.completed) for task in bar.tasks] == [
        ("scenes", 16),
        ("opening shards", 1),
    ]
    bar.show(Bar("opening shards", 9, 9, over=True))
    bar.show(Bar("scenes", 32, 64))
    assert [(task.description, task.completed) for task in bar.tasks] == [("scenes", 32)]


def test_a_verb_and_its_error_as_machines_read_them(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "ptft", "--log-format", "json"]
    small = ["data.train=16", "data.val=8", "data.test=8"]
    done = subprocess.run(
        [*run, "check", "pretrain/scenes", *small], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    assert all(json.loads(line)["logger"] == "ptft" for line in done.stderr.splitlines())
    done = subprocess.run([*run, "show", "pretrain/scene"], capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, json.loads(line)["exit_code"]) == (2, 2)
    assert "pretrain/scenes" in json.loads(line)["message"]


def test_what_others_log_on_the_root_is_not_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(root)
    end = listen(LogFormat.TEXT, quiet=False, verbose=False)
    tell("once")
    end()
    logging.getLogger().removeHandler(root)
    assert capsys.readouterr().err == "once\n"
    assert LOG.propagate
    assert LOG.level == logging.NOTSET


def test_only_the_command_knows_rich(repo: Path) -> None:
    """Who uses the library has logging, and no terminal."""
    for path in (repo / "ptft").rglob("*.py"):
        names = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
        }
        within = path.relative_to(repo / "ptft").parts[0] == "cli"
        assert within or not names & {"rich", "typer"}, path


def test_an_export_and_a_check_tell_of_every_part(tmp_path: Path) -> None:
    save_model(build(arch_section()), tmp_path / "checkpoint")
    lines: list[str] = []
    export_model(
        tmp_path / "checkpoint",
        tmp_path / "model",
        name="tiny",
        precisions=("fp16",),
        progress=lines.append,
    )
    told = "\n".join(lines)
    for file in ("text_model.onnx", "text_model_fp16.onnx", "vision_model_fp16.onnx"):
        assert f"onnx/{file}: " in told
    lines.clear()
    verify([str(tmp_path / "model")], torch=False, progress=lines.append)
    assert lines == [f"{tmp_path / 'model'}: holding it against what it records"]
