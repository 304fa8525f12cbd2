"""docs/howto/rent-a-gpu.md: each file in it is what the command above it prints."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.launch import load_launch
from tests.docs.pages import REPO, Fence, commands, fences

PAGE = fences(REPO / "docs" / "howto" / "rent-a-gpu.md")
SHOWN = [
    (command, answer)
    for command, answer in pairwise(PAGE)
    if command.language == "sh" and answer.language == "text"
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for fence in PAGE:
        if fence.file is not None:
            (tmp_path / fence.file).write_text(fence.text)
            load_launch(tmp_path / fence.file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_a_file_of_each_system() -> None:
    systems = [commands(command.text)[0].split("--on ")[1].split()[0] for command, _ in SHOWN]
    assert systems == ["skypilot", "slurm", "kubernetes", "hf-jobs", "slurm"]


@pytest.mark.parametrize(("command", "answer"), SHOWN)
def test_a_file_is_what_the_command_prints(command: Fence, answer: Fence, folder: Path) -> None:
    (line,) = commands(command.text)
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == answer.text
