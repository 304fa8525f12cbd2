"""The command's reference in Markdown, from the verbs' own docstrings, arguments and options."""

from typing import Any

import typer

from ptft.cli.main import app

__all__ = ["cli_reference"]


def cli_reference() -> str:
    """Markdown: a heading for each verb, what it says of itself, a definition for each option."""
    group = typer.main.get_command(app)
    lines = ["## Before the verb", "", *_definitions(group)]
    for name, command in _commands(group).items():
        for verb, inner in (_commands(command) or {"": command}).items():
            lines += _verb(f"ptft {name} {verb}".strip(), inner)
    return "\n".join(lines)


def _commands(group: Any) -> dict[str, Any]:
    """The commands of a group; of a verb none."""
    return getattr(group, "commands", {})


def _verb(name: str, command: Any) -> list[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    usage = " ".join([name, *(_place(param) for param in arguments)])
    lines = [f"## {name}", "", f"`{usage}`", "", command.help or "", ""]
    if examples := (command.epilog or "").strip():
        title, _, said = examples.partition("\n")
        lines += [title, "", "```text", said.strip(), "```", ""]
    return lines + _definitions(command)


def _definitions(command: Any) -> list[str]:
    """What each argument and option means."""
    lines: list[str] = []
    for param in command.params:
        if param.name in ("help", "install_completion", "show_completion") or not param.help:
            continue
        title = ", ".join(f"**`{each}`**" for each in [*param.opts, *param.secondary_opts])
        if param.param_type_name == "argument":
            title = f"**`{_place(param)}`**"
        elif param.default not in (None, False, True, ""):
            title += f" (default `{getattr(param.default, 'value', param.default)}`)"
        lines += [title, f": {param.help}", ""]
    return lines


def _place(param: Any) -> str:
    """An argument as the usage line shows it."""
    dots = "..." if param.nargs == -1 and not param.metavar else ""
    return (param.metavar or param.name.upper()) + dots
