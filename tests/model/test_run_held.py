"""The last model of a run, held against ``run.json``: all that it is opened from."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import RunFiles
from ptft.cli.main import main
from ptft.errors import DigestError
from ptft.model import build_model, load_model
from ptft.model.pretrained import find_pretrained
from ptft.recipe import ArchModel, dump_recipe, load_recipe, recipe_digest
from ptft.runs.finalise import save_final
from ptft.runs.folder import RunRecord, RunStatus, write_run
from ptft.train.teacher import load_teacher
from ptft.verify import verify
from tests.support import tiny


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _verified(run: Path) -> dict[str, str]:
    return {link.name: link.state for link in verify([str(run)])}


def _finished_run(run: Path, **more: Any) -> Path:
    """A run's folder with a last model, and what ``run.json`` says of that."""
    run.mkdir()
    recipe = load_recipe("pretrain/scenes")
    record = RunRecord("a", recipe_digest(recipe), RunStatus.FINISHED, "", {})
    (run / RunFiles.RECIPE).write_text(dump_recipe(recipe))
    save_final(run, tiny.build(tiny.arch_section()), recipe, record)
    write_run(run, dataclasses.replace(record, **more))
    return run / RunFiles.FINAL


@pytest.mark.parametrize("name", ["model.json", "tokenizer.json", "model.safetensors"])
def test_a_run_holds_all_that_its_last_model_is_opened_from(name: str, tmp_path: Path) -> None:
    final = _finished_run(tmp_path / "run")
    told: list[str] = []
    load_model(tmp_path / "run", tell=told.append)
    assert not told
    assert _verified(tmp_path / "run")["run files"] == "ok"
    _flip(final / name)
    with pytest.raises(DigestError, match=rf"{name}: .*run\.json records"):
        load_model(tmp_path / "run")
    assert _verified(tmp_path / "run").get("run files", "broken") == "broken"


@pytest.mark.parametrize(
    "values",
    [
        {"init": {"from": "RUN"}},
        {"init": {"from": "RUN", "weights": False}},
        {"model": {"name": "ViT-B-32", "pretrained": "RUN"}},
        {"model": {"name": "ViT-B-32"}, "distill": {"from": "RUN"}},
    ],
    ids=["init.from", "without weights", "pretrained", "distill.from"],
)
def test_what_a_recipe_starts_from_is_held(values: dict[str, Any], tmp_path: Path) -> None:
    final = _finished_run(tmp_path / "run")
    _flip(final / "model.safetensors")
    text = json.dumps(values).replace("RUN", str(tmp_path / "run"))
    common = {"name": "a", "data": {"kind": "scenes"}, "optim": {"samples_seen": 8}}
    recipe = load_recipe({**common, **json.loads(text)})
    with pytest.raises(DigestError, match=r"model\.safetensors: sha256 .*; run\.json records"):
        if recipe.distill is not None:
            load_teacher(recipe, tiny.build(tiny.arch_section()))
        elif isinstance(recipe.model, ArchModel):
            find_pretrained(recipe.model)
        else:
            build_model(None, recipe.init, recipe.objective, seed=0)


def test_a_run_opens_nothing_that_it_does_not_record(tmp_path: Path) -> None:
    final = _finished_run(tmp_path / "run")
    (final / "hf_text").mkdir()
    (final / "hf_text/config.json").write_text("{}")
    with pytest.raises(DigestError, match=r"run\.json does not record it"):
        load_model(tmp_path / "run")
    assert _verified(tmp_path / "run")["run files"] == "broken"


def test_a_run_from_before_says_what_is_not_held(tmp_path: Path) -> None:
    final = _finished_run(tmp_path / "run", files={})
    told: list[str] = []
    load_model(tmp_path / "run", tell=told.append)
    (said,) = told
    assert said.endswith("run.json records the weights alone; not held: model.json, tokenizer.json")
    assert _verified(tmp_path / "run")["run files"] == "unchecked"
    _flip(final / "model.safetensors")
    with pytest.raises(DigestError, match=r"run\.json records"):
        load_model(tmp_path / "run")


def test_verify_ends_with_what_it_did_not_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _finished_run(tmp_path / "a\x1b[31mrun", files={})
    monkeypatch.setattr("sys.argv", ["ptft", "verify", str(tmp_path / "a\x1b[31mrun")])
    with pytest.raises(SystemExit, match="0"):
        main()
    told = capsys.readouterr().out
    assert "\x1b" not in told and r"a\x1b[31mrun" in told
    assert told.splitlines()[-1] == "1 of 3 unchecked, and nothing is known of them: run files"
