"""Names that are commands, markup or terminal controls, through everything that shows a name."""

import ast
import functools
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.table import Table

from ptft.artifact import FolderFiles, ModelInfo
from ptft.cli.console import Steps
from ptft.cli.main import main
from ptft.cli.speech import LogFormat, fail, listen, stderr
from ptft.compare.page import write_report
from ptft.errors import DataError, SampleError
from ptft.export.card import Kept, make_card, read_kept
from ptft.hub.card import EMPTY, merge_card
from ptft.look import data_page
from ptft.model.spec import ModelSpec
from ptft.pages.document import environment
from ptft.pages.markdown import (
    card_metadata,
    code,
    fenced,
    inline,
    literal,
    quoted,
    replace_metadata,
    row,
)
from ptft.preprocess import ImagePreprocess, TextTokenizer, clip_bpe_json
from ptft.printable import printable
from ptft.recipe.load import load_comparison
from ptft.report.page.page import write_page
from ptft.runs.folder import RunRecord, write_run
from ptft.speech import tell, warn
from tests.support.comparisons import cell
from tests.support.looking import noise, put
from tests.support.nasty import NASTY
from tests.support.pages import Read

BAD = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029", "\ud800"} | {
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
}
LINES = BAD - {"\n", "\t"}
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def raw(text: str) -> set[str]:
    return LINES & set(text)


def tokens(text: str) -> list[Token]:
    """All of a Markdown text, those inside lines too."""
    return [one for token in PARSER.parse(text) for one in (token, *(token.children or []))]


def shown(text: str) -> str:
    return "".join(one.content for one in tokens(text) if one.type in ("text", "code_inline"))


@pytest.mark.parametrize("name", NASTY)
def test_printable_text_steers_no_terminal_and_can_be_read(name: str) -> None:
    assert not BAD & set(printable(name))
    assert not raw(printable(name, lines=True))
    assert printable(printable(name)) == printable(name)
    assert printable("zażółć 日本 👩‍💻 שלום") == "zażółć 日本 👩‍💻 שלום"


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("around", ["{}", "a {} b", "# {}", "x\n\n{}\n\ny"])
def test_a_name_in_a_sentence_or_a_heading_is_that_name(name: str, around: str) -> None:
    text = around.format(inline(name)) if "{" not in name else around.replace("{}", inline(name))
    found = tokens(text)
    kinds = {one.type for one in found} - {"inline", "text", "text_special", "softbreak"}
    assert kinds <= {"paragraph_open", "paragraph_close", "heading_open", "heading_close"}
    assert printable(name).strip() in shown(text)
    assert sum(one.type.endswith("_open") for one in found) == (3 if "\n" in around else 1)


@pytest.mark.parametrize("name", NASTY)
def test_a_name_in_a_table_is_one_cell(name: str) -> None:
    text = "\n".join((row(("a", "b", "c")), "|---|---|---|", row(("x", inline(name), code(name)))))
    cells = [one for one in tokens(text) if one.type == "td_open"]
    assert len(cells) == 3
    assert not {"html_inline", "link_open", "image", "em_open"} & {one.type for one in tokens(text)}
    assert [one.content for one in tokens(text) if one.type == "code_inline"] == [
        " ".join(printable(name).split("\n"))
    ]


@pytest.mark.parametrize("name", NASTY)
def test_code_ends_where_its_fence_ends(name: str) -> None:
    whole = f"first\n{name}\n{name} last"
    found = PARSER.parse(f"{fenced(whole, 'sh')}\nafter")
    assert [one.type for one in found] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert found[0].content == printable(whole, lines=True) + "\n" and found[0].info == "sh"


@pytest.mark.parametrize("name", NASTY)
def test_a_text_in_code_is_that_text(name: str) -> None:
    made = literal(name)
    assert not BAD & set(made) and "`" not in made and "'" not in made
    assert json.loads(made) == name
    if name != "\ud800":
        assert ast.literal_eval(made) == name


@pytest.mark.parametrize("name", NASTY)
def test_a_text_in_a_command_is_one_word(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"printf %s {quoted(name)}"], capture_output=True, cwd=tmp_path, check=True
    )
    assert done.stdout.decode() == printable(name)
    assert not list(tmp_path.iterdir())


@functools.cache
def tokenizer_of_clip() -> TextTokenizer:
    return TextTokenizer(clip_bpe_json(), context_length=77)


@functools.cache
def card(name: str, *, of_classes: bool = True) -> str:
    tokenizer = tokenizer_of_clip()
    spec = ModelSpec(
        name, {"embed_dim": 8, "text_cfg": {}}, ImagePreprocess(), tokenizer, open_clip_reason=name
    )
    info = ModelInfo(
        name=name,
        task="classify",
        embed_dim=8,
        context_length=77,
        image_size=(32, 32),
        logit_scale=100.0,
        logit_bias=0.0,
        recipe_digest="",
        weights_digest="",
        tokenizer=tokenizer.kwargs(),
        classes=[name, name + "2"] if of_classes else [],
        templates=["{}"],
        clients={"transformers": {"loads": "CLIPModel"}, "timm": {"reason": name}},
        reads="both",
    )
    metrics = {
        "evaluation": {name: {name: 0.5}},
        "parity": {},
        "libraries": {},
        "left_out": {name: name},
        "not_measured": name,
        "pixels": {"largest": 0, "share": 0},
    }
    files = ["preprocessor_config.json", "open_clip_config.json", "head.safetensors", "adapter/x"]
    files += [FolderFiles.VISION_ONNX, FolderFiles.TEXT_ONNX]
    return make_card(info, spec, None, metrics, files, licence=None, kept=Kept())


@pytest.mark.parametrize("name", NASTY)
def test_a_card_shows_a_name_and_does_not_run_it(name: str, tmp_path: Path) -> None:
    plain, nasty = tokens(card("plain")), tokens(card(name))
    assert not raw(card(name))
    ours = [one for one in nasty if one.type in ("html_block", "html_inline")]
    assert {one.content.strip() for one in ours} <= {
        one.content.strip() for one in plain if one.type in ("html_block", "html_inline")
    }
    for kind in (
        "heading_open",
        "fence",
        "td_open",
        "link_open",
        "image",
        "hr",
        "bullet_list_open",
    ):
        count = sum(one.type == kind for one in nasty)
        assert count == sum(one.type == kind for one in plain), kind
    curl = tmp_path / "curl"
    curl.write_text("#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done\n")
    curl.chmod(0o755)
    blocks = [one.content for one in nasty if one.type == "fence" and one.info.strip() == "sh"]
    (commands,) = [block for block in blocks if "curl" in block]
    done = subprocess.run(
        ["sh", "-eu", "-c", commands],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    words = done.stdout.decode().splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["curl"]
    (question,) = [word for word in words if word.startswith('{"texts"')]
    assert json.loads(question) == {"texts": [name, name + "2"]}
    assert words[words.index("--form-string") + 1] == f"texts={printable(name)}"
    for block in (one.content for one in nasty if one.type == "fence" and one.info == "python"):
        ast.parse(block)


def test_controls_in_a_card_on_the_hub_are_written_out(tmp_path: Path) -> None:
    block = "<!-- keep notes -->\n{}<!-- /keep notes -->\n"
    mine = "---\nlicense: mit\n---\n" + block.format("By hand.\n")
    evil = block.format("Of the Hub: \x1b[2J\n")
    theirs = f"---\nlicense: mit\ntags: ['\u202ex']\n---\n{evil}"
    merged = merge_card(mine.replace("By hand.\n", EMPTY), theirs)
    assert not raw(merged) and "Of the Hub: \\x1b[2J" in merged
    assert merge_card(mine.replace("By hand.\n", EMPTY), merged) == merged
    (tmp_path / "README.md").write_text(theirs)
    assert not raw(read_kept(tmp_path / "README.md").blocks["notes"])


@pytest.mark.parametrize("name", [name for name in NASTY if name not in ("\ud800", "\x00")])
def test_front_matter_is_yaml_whatever_is_in_it(name: str) -> None:
    values = {"title": name, name: [name, {"x": name}]}
    text = replace_metadata("body", values)
    assert not raw(text)
    assert card_metadata(text) == values


@pytest.mark.parametrize("name", NASTY)
def test_pages_show_a_name_as_text(name: str) -> None:
    body = '{% block body %}<p title="{{ title }}">{{ title }}</p>{% endblock %}'
    template = environment("ptft.pages").from_string(f'{{% extends "document.html" %}}{body}')
    values = {"styles": "", "script": "", "policy": "default-src 'none'"}
    text = template.render(title=name, generator=name, **values)
    assert not raw(text)
    page = Read(text)
    assert [tag for tag, _ in page.found if tag not in ("html", "head", "meta", "title")] == [
        *("style", "body", "p")
    ]
    assert page.all("p") == [{"title": printable(name, lines=True)}]


def test_a_runs_page_shows_no_name_raw(tmp_path: Path) -> None:
    record = RunRecord("n", "d", "failed", "2026-01-01T00:00:00+00:00", {"ptft": "1"})
    record.error, record.notes = " ".join(NASTY[:-5]), list(NASTY)
    record.skipped, record.faults = len(NASTY), {"corrupt": len(NASTY)}
    write_run(tmp_path, record)
    lines = [json.dumps({"name": name, "fault": "corrupt", "reason": name}) for name in NASTY[:15]]
    (tmp_path / "skipped.jsonl").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text('name: "\\e[31m\\u202e"\n')
    write_page(tmp_path)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not raw(text)
    page = Read(text)
    assert len(page.all("script")) == 1 and not page.all("img")
    assert "\\e[31m\\u202e" in page.words


def test_a_comparisons_report_shows_no_name_raw(tmp_path: Path) -> None:
    comparison = load_comparison("compare/scenes")
    names = ["<img src=x>", "a|b", "[x](y)", "`c`"]
    cells = [cell("zero_shot", 0.4), *(cell(name, 0.5, flops=2.0) for name in names)]
    write_report(comparison, cells, tmp_path, left=0, remarks=["<b>x</b>\n# y \x1b[31m\u202e"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not raw(page) and not raw(text)
    read = Read(page)
    assert len([one for one in read.all("svg") if "role" in one]) == 2
    assert not read.all("img") and not read.all("script")
    assert "<b>x</b>" not in page and "<b>x</b>" in read.words
    (policy,) = [one["content"] for one in read.all("meta") if "http-equiv" in one]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; style-src")
    assert not [one for tag, one in read.found if "style" in one]  # the policy lets none in
    kinds = {one.type for one in tokens(text)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline"}
    assert sum(one.type == "heading_open" for one in tokens(text)) == 5


def test_a_look_at_data_shows_no_name_raw(tmp_path: Path) -> None:
    cannot = set("/\x00\ud800\r\n\u2028")  # be a folder's name, or a class of one line
    names = [name for name in NASTY if not cannot & set(name)]
    for number, name in enumerate(names):
        put(tmp_path / "set" / "train" / f"c{name}" / f"p{name[:40]}.png", noise(number))
    text = data_page(str(tmp_path / "set"), ()).page
    assert not raw(text)
    page = Read(text)
    assert not page.all("script") and all("onerror" not in one for _, one in page.found)
    assert "c\\x1b[31mred" in page.words


@pytest.mark.parametrize("name", [name for name in NASTY if "\x00" not in name])
def test_an_error_of_the_command_steers_no_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ptft", "show", f"{name}/nowhere.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and not raw(told)


def test_a_name_in_an_error_breaks_no_line() -> None:
    error = DataError("a\nptft: all is well: not there", "  and b\n")
    assert str(error).splitlines() == [r"a\nptft: all is well: not there", r"  and b\n"]
    assert str(SampleError("a\rb", "empty")) == r"a\rb"


@pytest.mark.parametrize("name", ["a https://example.org/x", "www.example.org", "WWW.a.org"])
def test_an_address_in_a_name_is_no_link(name: str) -> None:
    """GitHub's Markdown makes links of :// and www. that no backslash is in."""
    assert not re.search(r"(?<!\\)://|www\.", inline(name), re.IGNORECASE)
    assert PARSER.render(inline(name)) == f"<p>{name}</p>\n"


@pytest.mark.parametrize("say", [tell, warn])
def test_what_a_library_hears_steers_no_terminal(
    say: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it writes records by."""
    with caplog.at_level(logging.INFO, "ptft"):
        for name in NASTY:
            say(name)
    assert len(caplog.messages) == len(NASTY) and not raw("".join(caplog.messages))


def test_the_terminal_is_told_names_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    end = listen(LogFormat.TEXT, quiet=False, verbose=False)
    console = stderr()
    table = Table("name", title="\x1b[31mtitle")
    for name in NASTY:
        table.add_row(name)
        tell(name)
        warn(name)
        console.print(f"warning: {name}")
    console.print(table)
    with Steps() as steps:
        steps("\x1b[31mstep")
        steps.count("\u202eimages", 1, 2)
    console.print("[red]marked[/red]")
    end()
    fail("\x1b[31mended\u202e")  # of an error that is none of ptft's
    told = capsys.readouterr().err
    assert not raw(told)
    assert "[x](javascript:alert(1))" in told
    assert "[red]marked[/red]" in told
    assert "1b[31mstep" in told
