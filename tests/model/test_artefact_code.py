"""Nothing that somebody else's artefact says is run, and nothing that it names is fetched."""

import ast
import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from ptft.errors import ArtifactError, ModelError
from ptft.model import load_model, save_model
from ptft.model.foreign import by_itself, refuse_code
from ptft.model.tokenizers import build_tokenizer
from ptft.model.towers import create_timm
from ptft.preprocess import TextTokenizer
from tests.support import tiny

_OWN = {"ImagePreprocess", "Reading", "cls"}  # classes of ptft's with a from_config


def _calls(repo: Path) -> Iterator[tuple[str, ast.Call]]:
    for top in ("ptft", "serving"):
        for path in sorted((repo / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield f"{path.relative_to(repo)}:{node.lineno}", node


def _lacking(calls: Iterator[tuple[str, ast.Call]]) -> list[str]:
    found = []
    for place, call in calls:
        assert isinstance(call.func, ast.Attribute)
        if call.func.attr not in ("from_pretrained", "from_config"):
            continue
        if isinstance(call.func.value, ast.Name) and call.func.value.id in _OWN:
            continue
        given = {word.arg: word.value for word in call.keywords}
        said = given.get("trust_remote_code")
        if not (isinstance(said, ast.Constant) and said.value is False):
            found.append(place)
    return found


def test_every_call_says_that_no_code_is_trusted(repo: Path) -> None:
    calls = list(_calls(repo))
    assert sum(call.func.attr == "from_pretrained" for _, call in calls) >= 3  # type: ignore[attr-defined]
    assert _lacking(iter(calls)) == []
    asked = [word for _, call in calls for word in call.keywords if word.arg == "trust_remote_code"]
    assert all(isinstance(word.value, ast.Constant) and not word.value.value for word in asked)


def test_a_call_that_does_not_say_so_is_found() -> None:
    tree = ast.parse("AutoModel.from_pretrained(x)\nA.from_config(c, trust_remote_code=True)")
    calls = (("x", node) for node in ast.walk(tree) if isinstance(node, ast.Call))
    assert len(_lacking(calls)) == 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody at the terminal who says yes to everything, and what he was asked."""
    questions: list[str] = []

    def answer(question: str = "") -> str:
        questions.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    return questions


def _trap(folder: Path, name: str, mark: Path) -> None:
    """A module of the repository that writes a file when it is imported."""
    (folder / name).write_text(f"open({str(mark)!r}, 'w').close()\nclass T:\n    pass\n")


def test_a_tokenizer_with_code_of_its_own(tmp_path: Path, asked: list[str]) -> None:
    folder = tiny.hf_text_folder(tmp_path / "hf")
    _trap(folder, "tok.py", tmp_path / "ran")
    path = folder / "tokenizer_config.json"
    values = {**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": ["tok.T", "tok.T"]}}
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: auto_map: .*code of the repo"):
        tiny.build(tiny.hf_section(folder))
    config = {"text_cfg": {"hf_tokenizer_name": str(folder), "context_length": 16}}
    with pytest.raises(ModelError, match="auto_map"):
        build_tokenizer(config, folder=folder)
    assert not asked
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["a kind of its own", "bert"])
def test_a_text_tower_with_code_of_its_own(kind: str, tmp_path: Path, asked: list[str]) -> None:
    folder = tiny.hf_text_folder(tmp_path / "hf")
    model = tiny.build(tiny.hf_section(folder))
    save_model(model, tmp_path / "saved")
    inner = tmp_path / "saved" / "hf_text"
    _trap(inner, "conf.py", tmp_path / "ran")
    path = inner / "config.json"
    values = {**json.loads(path.read_text()), "auto_map": {"AutoConfig": "conf.T"}}
    path.write_text(json.dumps({**values, "model_type": kind}))
    with pytest.raises(ModelError, match=r"config\.json: (auto_map|model_type): "):
        load_model(tmp_path / "saved")
    assert not asked
    assert not (tmp_path / "ran").exists()


def test_what_leaves_the_argument_out_asks_nobody(tmp_path: Path, asked: list[str]) -> None:
    """open_clip does; whatever is asked of transformers inside is answered by an error."""
    from transformers import AutoConfig

    _trap(tmp_path, "conf.py", tmp_path / "ran")
    values = {"model_type": "own", "auto_map": {"AutoConfig": "conf.T"}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    before = constants.HF_HUB_OFFLINE
    with by_itself(offline=True), pytest.raises(ValueError, match="trust_remote_code"):
        AutoConfig.from_pretrained(tmp_path)
    assert not asked
    assert not (tmp_path / "ran").exists()
    assert before == constants.HF_HUB_OFFLINE


@pytest.fixture
def unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection is told."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_what_is_read_by_itself_fetches_nothing(unconnected: None) -> None:
    """Whatever a library comes to name inside, from a table of its own, say."""
    from transformers import AutoConfig

    with by_itself(offline=True), pytest.raises(OSError, match="offline mode"):
        AutoConfig.from_pretrained("somebody/else", trust_remote_code=False)


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {"AutoModel": "other/repo--code.M"}},
        {"text_config": {"auto_map": {"AutoModel": "m.M"}}},
        {"layers": [{"_target_": "os.system"}]},
        {"custom_pipelines": {"x": {"impl": "m.M"}}},
        {"attn_implementation": "somebody/kernel"},
        {"text_config": {"_attn_implementation": "somebody/kernel@main"}},
        {"quantization_config": {"quant_method": "x"}},
        {"tokenizer_class": "../evil.T"},
        {"tokenizer_class": ["a.T", None]},
        {"trust_remote_code": True},
        {"backbone": "somebody/model"},
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**9},
    ],
)
def test_a_key_that_runs_or_fetches(values: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"config\.json: .*; allowed: "):
        refuse_code(values, "config.json")


def test_keys_that_say_nothing_of_the_kind() -> None:
    plain = {"auto_map": None, "tokenizer_class": "BertTokenizer", "_attn_implementation": "sdpa",
             "quantization_config": {}, "max": float("inf")}  # fmt: skip
    refuse_code(plain, "config.json")
    with pytest.raises(ModelError, match="auto_map"):
        refuse_code({**plain, "auto_map": {"AutoModel": "a.B"}}, "config.json")


@pytest.mark.parametrize("key", ["hf_model_name", "hf_tokenizer_name"])
def test_a_second_repository_is_not_fetched(key: str, tmp_path: Path, unconnected: None) -> None:
    from safetensors.torch import save_file

    model = tiny.build(tiny.arch_section())
    config = json.loads(json.dumps(dict(model.spec.config)))
    config["text_cfg"][key] = "somebody/else"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=f"{key}: 'somebody/else': another repository"):
        load_model(tmp_path)


def test_a_pickle_that_timm_would_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="checkpoint_path: it reads or fetches something"):
        create_timm("test_efficientnet", {"checkpoint_path": str(tmp_path / "x.pth")})


_PARTS: dict[str, Any] = {
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _split(pattern: str) -> dict[str, Any]:
    searched = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": {"type": "Split", **searched}}


def _steps(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def _pieces(*pieces: object) -> dict[str, Any]:
    return {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], *pieces]}


def _words(**values: object) -> dict[str, Any]:
    return {"type": "WordPiece", "unk_token": "a", "vocab": {"a": 0}, **values}


_LONG = base64.b64encode(bytes(4) + b"A" * 1200 + b"\0").decode()  # an empty trie, one text
_TENS = [_replace({"String": a}, b * 10) for a, b in zip("abcdefghij", "bcdefghijk", strict=True)]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (_steps(*_TENS), "makes up to 1e"),
        (_steps(_replace({"String": "a"}, "b" * 300)), "makes up to 300 bytes of one"),
        (_steps(_replace({"Regex": "a?"}, "b" * 300)), "makes up to 301 bytes of one"),
        (_steps(_replace({"Regex": "."}, "bb"), *[_replace({"Regex": "b"}, "bb")] * 9), "1.02e"),
        (_steps(_replace({"String": ""}, "a")), "a text that is not empty"),
        (_steps(_replace({"Regex": "(a+)+$"}, "a")), "without a repeat of what repeats"),
        (_steps(_replace({"Regex": "(a|a)*$"}, "a")), "without a repeat of what repeats"),
        (_steps(_replace({"Regex": "(a)\\1+"}, "a")), "without references"),
        (_steps(_replace({"Regex": "(a"}, "a")), "a bracket that does not end"),
        (_steps(*[_replace({"Regex": "a+$"}, "a")] * 33), "33 expressions with a repeat that is"),
        (
            _steps(_replace({"String": "a"}, "b" * 30)) | _split("b+$"),
            "on texts that grow 30 times; allowed: 32, on texts that grow 20",
        ),
        (
            _steps({"type": "Precompiled", "precompiled_charsmap": _LONG}),
            "makes up",
        ),
        (_steps({"type": "Python", "code": "1"}), "type: 'Python'; allowed: "),
        ({"pre_tokenizer": {"type": "Custom"}}, "type: 'Custom'; allowed: "),
        (_split("(x+x+)+y"), "without a repeat of what"),
        (_split("(?=.*q.*q.*q.*x)q"), "without repeats after repeats"),
        (_split("q{1,999}q{1,999}x"), "without repeats after repeats"),
        (_split("a?" * 30 + "a" * 30), "without repeats after repeats"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [{}] * 1000}}, "at most 64"),
        ({"model": {**_PARTS["model"], "vocab": {"a": -1}}}, r"vocab\['a'\]: -1"),
        (
            {"model": {"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.5}},
            "must not be drawn",
        ),
        ({"surprise": 1}, "unknown key"),
        ({"added_tokens": [{"id": 2, "content": "a" * 8192}] * 129}, "1048576 characters of all"),
        ({"model": _pieces(["a" * 513, -1.0])}, "each of at most 512"),
        ({"model": _pieces(*[["a" * 512, -1.0]] * 32769)}, "16777216 bytes of pieces"),
        ({"model": _pieces("a")}, "pieces, each with its score"),
        ({"model": _words(max_input_chars_per_word=513)}, "a whole number from 0 to 512"),
        ({"model": _words(continuing_subword_prefix="a" * 65)}, "a text of at most 64"),
        ({"model": _words(end_of_word_suffix="a" * 65)}, "a text of at most 64"),
    ],
)
def test_a_tokenizer_that_grows_or_hangs(parts: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**_PARTS, **parts}))
    with pytest.raises(ModelError, match=said):
        TextTokenizer(path, context_length=8, kind="hf", clean="none")


def test_a_search_that_is_given_up_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an expression is let through after all, the library ends a search by a panic."""
    monkeypatch.setattr("ptft.preprocess.texts.check_tokenizer", lambda text, where: {})
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(_PARTS | _split("a?" * 30 + "a" * 30)))
    tokenizer = TextTokenizer(path, context_length=8, kind="hf", clean="none")
    with pytest.raises(ModelError, match="cannot read a text"):
        tokenizer(["a" * 30])


def test_a_nested_specification(tmp_path: Path) -> None:
    save_model(tiny.build(tiny.arch_section()), tmp_path)
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match=r"model\.json: not JSON"):
        load_model(tmp_path)
