"""What takes a while is told of: by lines in a log, by a bar on a terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from ptft.export import export_model
from ptft.model import save_model
from ptft.progress import Steps
from ptft.verify import verify
from tests.support.tiny import arch_section, build


def test_a_log_has_a_line_a_step_and_of_a_long_one_how_far_it_is() -> None:
    out = io.StringIO()
    with Steps(Console(file=out, width=20)) as steps:
        steps("reading a model from a folder with a long name [of brackets]")
        steps.remind()
        steps("measuring it")
        for done in (10, 20):
            steps.count("val images", done, 2000)
        steps.remind()
        steps.count("texts", 1, 5)
    assert out.getvalue().splitlines() == [
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
