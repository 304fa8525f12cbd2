"""The recipe of somebody's artefact says what it was made by, and nothing to this machine."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.export import export_model
from ptft.export.record import read_provenance
from ptft.model import save_model
from ptft.model.licence import run_licence
from ptft.recipe import (
    RunSection,
    ShardsData,
    dump_recipe,
    load_evaluation,
    load_foreign,
    load_recipe,
    recipe_digest,
)
from ptft.recipe.load import parse_recipe
from ptft.recipe.publication import drop_local
from ptft.runs.folder import start_run
from tests.serving.checkpoint import make_model
from tests.support.remote_shards import store

__all__ = ["store"]  # a fixture

SHARDS = {"kind": "shards", "train": "a.tar", "val": "a.tar", "cache": "~/backups", "cache_gb": 0.1}
RUN = {"dir": "/tmp/elsewhere", "workers": 64, "trackers": ["wandb"], "cache": "~/backups"}


def values(**changes: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "model": {"name": "ViT-B-32"},
        "data": SHARDS,
        "optim": {"samples_seen": 8},
        "run": RUN,
        **changes,
    }


def local(section: ShardsData) -> tuple[str | None, float]:
    return section.cache, section.cache_gb


def test_what_is_about_the_machine_has_its_defaults(tmp_path: Path) -> None:
    items = [{"kind": "retrieval", "name": "own", "data": SHARDS}]
    mixture = {"kind": "mixture", "parts": [{"data": SHARDS}, {"data": SHARDS}]}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values(data=mixture, evaluate=items)))
    mine, theirs = load_recipe(path), load_foreign(path)
    assert theirs.run == RunSection() != mine.run
    sections = [part.data for part in theirs.data.parts] + [theirs.evaluate[0].data]  # type: ignore[union-attr]
    assert [local(section) for section in sections] == [(None, 32.0)] * 3  # type: ignore[arg-type]
    assert recipe_digest(mine) == recipe_digest(theirs), "it is the same recipe all the same"


def test_stages_and_what_they_keep_have_their_defaults_too() -> None:
    item = {"kind": "retrieval", "data": SHARDS}
    stages = [{"name": "s", "data": SHARDS, "evaluate": item}]
    written = json.loads(json.dumps(values(stages=stages, guard={"known": [SHARDS]})))
    drop_local(written)
    assert "backups" not in json.dumps(written)


@pytest.mark.parametrize("odd", [None, 3, "x", [], [3], {"parts": 3}, {"parts": [3, {"data": 4}]}])
def test_what_is_of_another_shape_is_left_to_the_recipe(odd: Any) -> None:
    for key in ("data", "evaluate", "stages", "guard", "run"):
        given = {key: odd, "x": 1}
        drop_local(given)
        assert given == ({"x": 1} if key == "run" else {key: odd, "x": 1})


def test_whoever_asks_may_say_where_things_lie(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values()))
    assert local(load_foreign(path, ["data.cache=mine"]).data) == ("mine", 32.0)  # type: ignore[arg-type]
    loaded = load_evaluation(path, ["data.cache_gb=5"], model="m", foreign=True)
    assert local(loaded.data) == (None, 5.0)  # type: ignore[arg-type]
    named = load_evaluation(path, model="m")
    assert local(named.data) == ("~/backups", 0.1)  # type: ignore[arg-type]


def run_of(folder: Path, store: Path, cache: Path) -> Path:
    """A finished run whose recipe keeps fetched shards in somebody's folder."""
    data = {
        **SHARDS,
        "train": f"file://{store}/s-*.tar",
        "val": f"file://{store}/s-0.tar",
        "cache": str(cache),
        "cache_gb": 0.00013,
        "shuffle_shards": 2,
    }
    evaluate = [{"kind": "retrieval", "split": "val"}]
    recipe = parse_recipe(values(data=data, evaluate=evaluate), "test")
    start_run(folder, recipe, device="cpu", total=8)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    save_model(make_model(), folder / "final")
    return folder


def test_evaluating_and_exporting_a_run_leave_its_folders_alone(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    (backups / f"{'a' * 32}.tar").write_bytes(b"dear to me")  # as a cache would name it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    run = run_of(tmp_path / "run", store, backups)
    result = CliRunner().invoke(app, ["evaluate", str(run)])
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "home/ptft/shards/.ptft-cache").is_file(), "where this machine keeps them"
    assert read_provenance(run).recipe.data.cache is None  # type: ignore[union-attr]
    shutil.rmtree(tmp_path / "home")
    export_model(run, tmp_path / "model", precisions=())
    assert [path.name for path in backups.iterdir()] == [f"{'a' * 32}.tar"]
    assert read_provenance(tmp_path / "model").recipe.data.cache is None  # type: ignore[union-attr]


def test_runs_that_start_from_each_other_have_no_licence(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        written = values(data={"kind": "scenes"}, init={"from": str(tmp_path / other)})
        del written["model"], written["run"]
        (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(written))
    assert run_licence(tmp_path / "a") == "unknown"


def test_no_code_reads_the_recipe_of_a_folder_as_its_users_own(repo: Path) -> None:
    """``load_recipe`` and its kin take what a user named; of a folder it is ``load_foreign``."""
    found = []
    for path in sorted((repo / "ptft").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name not in ("load_recipe", "load_any", "load_evaluation", "read_values"):
                continue
            given = ast.unparse(node.args[0])
            if given not in ("recipe", "source", "target") and path.name != "publication.py":
                found.append(f"{path.relative_to(repo)}: {ast.unparse(node)}")
    assert found == []
