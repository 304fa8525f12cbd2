"""Every command, recipe and piece of Python of the README and the docs is run, in their order."""

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ELSEWHERE, MARKS, REPO, Fence, commands, fences, pages
from tests.docs.walk import TOKEN, Walk, draw, environment
from tests.support.loopback_hub import LoopbackHub
from tests.support.warm import Warm

PAGES = {page.relative_to(REPO).as_posix(): page for page in pages()}
SHELL = ("sh", "bash")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """A reader who has done what the README says."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("walk")
    draw(folder)
    files = {f.file: f.text for page in pages() for f in fences(page) if f.file is not None}
    with LoopbackHub(token=TOKEN) as hub, contextlib.ExitStack() as held:
        settings = {**environment(home), **hub.env(), "HF_TOKEN": TOKEN}
        warm = held.enter_context(Warm(tmp_path_factory.mktemp("out"), settings))
        walk = Walk(folder, hub, warm, settings, files)
        held.callback(walk.end)
        for line in _to_run(REPO / "README.md"):
            walk.run(line)
        yield walk


def _to_run(page: Path) -> list[str]:
    blocks = [f for f in fences(page) if f.language in SHELL and not f.marks]
    return [line for block in blocks for line in commands(block.text) if line[:5] != "make "]


def test_from_pictures_to_a_service(walk: Walk) -> None:
    """What the README's commands say, in the order that the way has."""
    way = _to_run(REPO / "README.md")
    assert [shlex.split(line)[1] for line in way[:10]] == [
        *("ls", "cp", "data", "check", "train", "evaluate", "export", "push", "pull", "verify")
    ]
    assert "bentoml serve" in way[10]
    assert walk.run(way[1]).strip() == "shoes.yaml"
    assert len(way) == 14
    for line in way[11:]:
        assert line.startswith("curl ")
        assert '"digest":"sha256:' in walk.run(line).replace(" ", "")


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_a_page_does_what_it_says(name: str, walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(walk.folder)
    monkeypatch.syspath_prepend(str(REPO))
    python: dict[str, object] = {"__name__": "__main__"}
    for fence in fences(PAGES[name]):
        if fence.language in SHELL and not fence.marks:
            for line in commands(fence.text):
                walk.run(line)
        elif fence.language == "yaml":
            assert fence.file, f"{name}: a YAML block whose first line is not '# NAME.yaml'"
            walk.write(fence.file)
        elif fence.language == "python" and ELSEWHERE not in fence.marks:
            text = fence.text.replace("localhost:3000", f"localhost:{walk.port}")
            with contextlib.redirect_stderr(io.StringIO()):
                exec(compile(text, name, "exec"), python)


MARKED = [f for page in pages() for f in fences(page) if set(f.marks) - {ELSEWHERE}]


@pytest.mark.parametrize("fence", MARKED, ids=lambda fence: f"{fence.page}-{fence.marks[0]}")
def test_what_cannot_be_run_here_has_the_arguments_that_its_program_takes(fence: Fence) -> None:
    assert set(fence.marks) <= set(MARKS), fence
    assert fence.language == "sh"
    for line in commands(fence.text):
        words = shlex.split(line)
        if words[:3] == ["python", "-m", "ptft.launch.ranks"]:  # it takes torchrun's arguments
            words[:3] = ["torchrun"]
        if "ptft" in words and words[0] in ("ptft", "torchrun"):
            _parse_ptft(words[words.index("ptft") + 1 :])
        if words[0] == "torchrun":
            from torch.distributed.run import parse_args

            assert parse_args(words[1:]).training_script == "ptft"
        elif words[0] == "helm":
            _check_values(line)
        else:
            assert words[0] in ("ptft", "kubectl"), f"{line}: nothing holds it"


def _parse_ptft(words: list[str]) -> None:
    """The verb takes these arguments; nothing is run."""
    import typer

    from ptft.cli.main import app

    command = typer.main.get_command(app)
    while (inner := getattr(command, "commands", None)) is not None:
        name, *words = words
        command = inner[name]
    command.make_context("ptft", list(words))


def _check_values(line: str) -> None:
    """Each value that is set is one of the chart's."""
    schema = json.loads((REPO / "charts/ptft/values.schema.json").read_text())
    for key in re.findall(r"--set(?:-string)? ([\w.]+)=", line):
        place = schema
        for part in key.split("."):
            assert part in place["properties"], f"{line}: the chart has no {key}"
            place = place["properties"][part]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_only_verbs_and_files_that_exist(name: str) -> None:
    from ptft.cli.main import GROUPS, VERBS

    page = PAGES[name]
    text = page.read_text()
    lines = [line for fence in fences(page) for line in commands(fence.text)]
    shown = "\n".join([*lines, *re.findall(r"`(ptft [^`]+)`", text)])
    named = set(re.findall(r"^ptft ([a-z]+)\b", shown, re.MULTILINE))
    assert named <= {*VERBS, *GROUPS}, named
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name}: {target}"
    if name == "README.md":
        assert len(text.encode()) <= 7 * 1024
