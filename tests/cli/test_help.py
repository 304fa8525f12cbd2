"""What ``ptft --help`` and the help of each verb say."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ptft.cli.main import GROUPS, STAGES, VERBS, app
from ptft.recipe.load import builtin_recipes

COMMAND = typer.main.get_command(app)
NAMES = [*((verb,) for verb in VERBS), *(("data", verb) for verb in ("look", "index", "pack"))]


def told(*words: str) -> str:
    found = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "100"})
    assert found.exit_code == 0
    return found.stdout


def examples(words: tuple[str, ...]) -> list[str]:
    """Commands at the end of a verb's help."""
    text = told(*words).rstrip()
    lines = [line.strip() for line in text.rpartition("Example:")[2].splitlines()]
    return [line for line in lines if line]


def test_verbs_stand_under_their_stage() -> None:
    text = told()
    places = [text.index(f"─ {stage} ─") for stage in STAGES]
    assert places == sorted(places)
    for (stage, verbs), start, end in zip(
        STAGES.items(), places, [*places[1:], len(text)], strict=True
    ):
        for verb in verbs:
            assert f"│ {verb} " in text[start:end], (stage, verb)
    assert {*VERBS, *GROUPS} == {verb for verbs in STAGES.values() for verb in verbs}


@pytest.mark.parametrize("words", NAMES, ids=" ".join)
def test_the_help_of_a_verb_ends_with_commands_that_parse(words: tuple[str, ...]) -> None:
    lines = examples(words)
    assert 1 <= len(lines) <= 2
    for line in lines:
        program, *rest = shlex.split(line)
        assert program == "ptft"
        assert tuple(rest[: len(words)]) == words
        command = COMMAND
        for word in words:
            command = command.commands[word]  # type: ignore[attr-defined]
        with command.make_context(line, rest[len(words) :]) as context:
            assert context.params
        recipes = [word for word in rest if word.startswith(("pretrain/", "finetune/", "compare/"))]
        assert set(recipes) <= set(builtin_recipes())


@pytest.mark.parametrize("words", [("ls",), ("show",), ("cp",)], ids=" ".join)
def test_those_that_need_no_data_run(words: tuple[str, ...], tmp_path: Path) -> None:
    for line in examples(words):
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(line)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_help_imports_nothing_that_a_verb_needs() -> None:
    """It is to answer at once: ``python -m tests.bench cli_help`` measures."""
    code = (
        "import sys; from ptft.cli import main; print(*(n.partition('.')[0] for n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "typer" in done.stdout.split()
    assert not {"numpy", "torch", "PIL", "pydantic", "yaml"} & set(done.stdout.split())
