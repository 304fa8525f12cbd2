"""What a verb makes of its arguments before they are read."""

import typer
from typer.testing import CliRunner

from ptft.cli.arguments import ResumeOption, Verb

app = typer.Typer()


@app.command(cls=Verb)
def show(words: list[str], resume: ResumeOption = None) -> None:
    typer.echo([*words, resume])


def told(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_resume_stands_alone_or_has_a_value() -> None:
    assert told("a", "--resume") == "['a', 'run']"
    assert told("--resume", "a") == "['a', 'run']"
    assert told("--resume", "auto", "a") == "['a', 'auto']"
    assert told("a", "--resume=auto") == "['a', 'auto']"


def test_what_is_empty_or_behind_two_dashes_stays() -> None:
    assert told("", "a", "") == "['', 'a', '', None]"
    assert told("a", "--", "--resume", "auto") == "['a', '--resume', 'auto', None]"
