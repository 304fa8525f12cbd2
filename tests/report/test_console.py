"""What a run says while it goes, on a terminal and into a file."""

import io
import re
from pathlib import Path

from rich.console import Console

from ptft.report.console import Report
from ptft.runs.folder import RunRecord
from tests.train.test_train import recipe

FIGURES = {
    "loss": 6.3512,
    "accuracy": 0.25,
    "grad_norm": 189.04,
    "logit_scale": 14.2857,
    "lr": 1e-3,
}


def stopped() -> RunRecord:
    return RunRecord("tiny", "", "stopped", "", {}, total=1_000_000, notes=["of the part before"])


def report(folder: Path, record: RunRecord, console: Console) -> Report:
    return Report(
        folder, recipe(folder), record, seen=0, step=0, seconds=0.0, trackers={}, console=console
    )


def test_a_bar_and_its_figures_fit_into_eighty_columns(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    with report(tmp_path, stopped(), console) as shown:
        shown.pace.step(250_000)
        shown.step(250_000, {**FIGURES, "samples_per_second": 12345.678})
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", screen)]
    assert any(line.startswith("tiny ━━━━━━") and " left" in line for line in lines)
    figures = [line for line in lines if line.startswith("loss 6.351")]
    assert figures
    assert "…" not in "".join(lines)
    assert figures[-1] == (
        "loss 6.351  accuracy 0.25  grad norm 189  logit scale 14.29  samples/s 12,346"
    )


def test_a_stream_gets_plain_lines_and_notes(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=False)
    record = stopped()
    with report(tmp_path, record, console) as shown:
        assert record.notes == [], "notes are of this part"
        shown.note("learns: [bold]everything[/bold]")
        shown.step(16, FIGURES)  # within ten seconds of the start: no line
    assert stream.getvalue() == "  learns: [bold]everything[/bold]\n"
    assert record.notes == ["learns: [bold]everything[/bold]"]
    assert record.status == "running"
