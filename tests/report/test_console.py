"""What a run says while it goes, on a terminal and into a file."""

import io
import logging
import re
import sys
from pathlib import Path

import pytest

from ptft.checkpoint import TrainProgress
from ptft.cli.speech import LogFormat, listen
from ptft.report import console as report_console
from ptft.report.console import Report
from ptft.runs.folder import RunRecord
from ptft.speech import LOG
from tests.support.runs import recipe

FIGURES = {
    "loss": 6.3512,
    "accuracy": 0.25,
    "grad_norm": 189.04,
    "logit_scale": 14.2857,
    "lr": 1e-3,
}


def stopped() -> RunRecord:
    return RunRecord("tiny", "", "stopped", "", {}, total=1_000_000, notes=["of the part before"])


def report(folder: Path, record: RunRecord, log: logging.Logger = LOG) -> Report:
    return Report(folder, recipe(folder), record, TrainProgress(), log=log)


def test_a_bar_and_its_figures_fit_into_eighty_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(report_console, "LINE_EVERY", -1.0)  # as if a line were due each time
    end = listen(LogFormat.TEXT, quiet=False, verbose=False)
    with report(tmp_path, stopped()) as shown:
        shown.clock.step(250_000)
        shown.step(250_000, {**FIGURES, "samples_per_second": 12345.678})
    end()
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", screen)]
    assert any(line.startswith("tiny ━━━━━━") and " left" in line for line in lines)
    figures = [line for line in lines if line.startswith("loss 6.351")]
    assert figures
    assert "…" not in "".join(lines)
    assert figures[-1] == (
        "loss 6.351  accuracy 0.25  grad norm 189  logit scale 14.29  samples/s 12,346"
    )
    assert "/1,000,000 samples" not in screen, "the bar shows it"


def test_a_stream_gets_plain_lines_and_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = stopped()
    end = listen(LogFormat.TEXT, quiet=False, verbose=False)
    with report(tmp_path, record) as shown:
        assert record.notes == [], "notes are of this part"
        shown.note("learns: [bold]everything[/bold]")
        shown.step(16, FIGURES)  # within ten seconds of the start: no line
    end()
    assert capsys.readouterr().err == "  learns: [bold]everything[/bold]\n"
    assert record.notes == ["learns: [bold]everything[/bold]"]
    assert record.status == "running"


def test_who_uses_the_library_has_records_with_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ptft")
    with report(tmp_path, stopped()) as shown:
        shown.step(16, FIGURES)
    begun, step, over = caplog.records
    assert [each.levelno for each in caplog.records] == 3 * [logging.DEBUG]
    assert (begun.bar.done, step.bar.done, over.bar.over) == (0, 16, True)  # type: ignore[attr-defined]
    assert step.fields == {**FIGURES, "done": 16, "total": 1_000_000}  # type: ignore[attr-defined]
    assert step.getMessage().startswith("tiny: 16 of 1,000,000  loss 6.351")


def test_an_evaluation_is_told_by_what_people_look_at_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {
        "test": {"map": 0.412, "ap50": 0.75, "ap75": 0.4, "map_small": 0.1, "ar100": 0.5},
        "zero": {"top1": 0.5, "chance": 0.1, "images": 7},
    }
    end = listen(LogFormat.TEXT, quiet=False, verbose=False)
    with report(tmp_path, stopped()) as shown:
        shown.evaluated(TrainProgress(), "after training", figures)
    end()
    lines = capsys.readouterr().err.splitlines()
    assert "test after training: map 41.2%, ap50 75.0%, ap75 40.0%" in lines
    assert "zero after training: top1 50.0%" in lines
