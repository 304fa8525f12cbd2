"""What `ptft check` sees of the data of a recipe, before anything is learned."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.data import open_split
from ptft.data.checks.check import check_captions, check_classes, check_splits
from ptft.data.sources.class_captions import ClassCaptions
from ptft.errors import DataError, RecipeError
from ptft.recipe import check_recipe, dump_recipe
from ptft.recipe.check import splits_of
from ptft.recipe.load import load_any, parse_recipe
from ptft.recipe.objective import ClassifyObjective, ClipObjective
from tests.support.shards import picture, write_tar

MODEL = {
    "image": "test_efficientnet",
    "image_size": 32,
    "image_projection": "linear",
    "embed_dim": 32,
    "text": {"width": 64, "layers": 2, "heads": 2, "context_length": 16},
}


def _recipe(data: dict[str, Any], kind: str = "clip", **values: Any) -> Any:
    values = {"evaluate": [], "objective": {"kind": kind}, **values}
    optim = {"lr": 1e-3, "global_batch": 8, "epochs": 1, "precision": "fp32"}
    return parse_recipe({"name": "r", "model": MODEL, "data": data, "optim": optim, **values}, "r")


def _classes(root: Path, **counts: int) -> str:
    for place, (name, count) in enumerate(counts.items()):
        for number in range(count):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(40 * place + number))
    return str(root)


def _captioned(root: Path, texts: list[str], first: int = 0) -> str:
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    for number, row in enumerate(rows):
        (root / row["file_name"]).write_bytes(picture(first + number))
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


def _words(count: int) -> list[str]:
    return [f"picture {number}" for number in range(count)]


def _said(recipe: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        check_splits(recipe, **options)
    return str(caught.value)


def test_every_split_that_is_read_is_looked_at_once(tmp_path: Path) -> None:
    paths = {s: _classes(tmp_path / s, ant=4, bee=3) for s in ("train", "val", "test")}
    other = {"kind": "folder", "test": _classes(tmp_path / "other", bee=2)}
    recipe = _recipe(
        {"kind": "folder", **paths},
        "classify",
        evaluate=[
            {"kind": "classify"},
            {"kind": "probe", "split": "test", "name": "p"},
            {"kind": "classify", "name": "o", "data": other, "split": "test"},
        ],
    )
    told: list[str] = []
    checked, warnings = check_splits(recipe, tell=told.append)
    labels = ["data.train", "data.val", "data.test", "evaluate.2.data.test"]
    assert [found.label for found in checked] == labels
    assert told == [f"looking at {label}" for label in labels]
    train, val = checked[0].survey, checked[1].survey
    assert (train.samples, train.classes, train.counts) == (7, ["ant", "bee"], [4, 3])
    assert train.labels_are == "names" and train.forms == {"PNG RGB": 7}
    assert train.first[0] == ("ant/0.png", "ant", ())
    assert checked[1].twins.shared[0] == 7 and val.sizes == [(8, 6)] * 7
    assert any("7 of 7 pictures are in data.train too, byte for byte" in w for w in warnings)
    json.dumps([found.survey.summary() for found in checked])


@pytest.mark.parametrize("stranger", ["val", "test", "other"])
def test_a_class_that_training_lacks_is_named_beforehand(tmp_path: Path, stranger: str) -> None:
    paths = {s: _classes(tmp_path / s, ant=4, bee=3) for s in ("train", "val", "test", "other")}
    _classes(tmp_path / stranger, moth=1)
    other = {"kind": "folder", "test": paths.pop("other")}
    items = [
        {"kind": "classify"},
        {"kind": "classify", "split": "test", "name": "t"},
        {"kind": "classify", "name": "o", "data": other, "split": "test"},
    ]
    recipe = _recipe({"kind": "folder", **paths}, "classify", evaluate=items)
    if stranger == "other":  # the other two cannot even be opened
        with pytest.raises(DataError, match=r"^evaluate\.2\.data\.test: class 'moth' is not among"):
            check_classes(recipe, ["ant", "bee"])
    said = _said(recipe)
    where = {"other": "evaluate.2.data.test: "}.get(stranger, f"data.{stranger}: ")
    assert "'moth'" in said and said.startswith(where) and "not among" in said


def test_absent_and_broken_pictures_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    data = {"kind": "folder", "train": _captioned(tmp_path / "train", _words(40))}
    for number in range(30, 40):
        (tmp_path / "train" / f"{number}.png").unlink()
    said = _said(_recipe(data))
    assert "data.train: 10 of 40 pictures are absent (first: 30.png); allowed: 1.0%" in said
    lenient, warnings = check_splits(_recipe({**data, "max_skipped": 0.5}))
    assert lenient[0].survey.absent == (10, "30.png")
    assert "data.train: 10 pictures are absent (30.png)" in warnings
    rows = {"image": [picture(i) if i % 4 else b"no picture at all, but long" for i in range(40)]}
    rows["text"] = _words(40)
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    said = _said(_recipe({"kind": "table", "train": str(tmp_path / "t.parquet")}))
    assert "10 of 40 samples looked at cannot be read: 10 corrupt: t.parquet/0/0: not a" in said
    null = {"image": [picture(0), None, None], "text": _words(3)}
    pq.write_table(pa.table(null), tmp_path / "n.parquet")
    said = _said(_recipe({"kind": "table", "train": str(tmp_path / "n.parquet")}))
    assert "2 empty: n.parquet/0/1: it has no picture" in said


def test_some_pictures_are_looked_at_or_all(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for number in range(300):
        data = picture(number % 256) if number != 7 else picture(7)[:40]
        files |= {f"{number}.png": data, f"{number}.txt": f"t{number}".encode()}
    recipe = _recipe({"kind": "shards", "train": str(write_tar(tmp_path / "t.tar", files))})
    some, _ = check_splits(recipe)
    assert some[0].survey.looked == 128 and not some[0].survey.faults
    every, warnings = check_splits(recipe, every=True)
    joined = 257  # pictures of 256 greys, and a broken one
    assert every[0].survey.looked == joined
    assert list(every[0].survey.faults) == ["corrupt"]
    assert any("1 of 257 pictures corrupt: t.tar/7" in line for line in warnings)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_one_caption_for_all_and_one_class_are_refused(tmp_path: Path, kind: str) -> None:
    data = {"kind": "folder", "train": _captioned(tmp_path / "same", ["a photo"] * 9)}
    said = _said(_recipe(data, kind))
    assert "data.train: all 9 samples have one caption, 'a photo': pairs of one caption" in said
    samples = open_split(_recipe(data).data, "train")
    with pytest.raises(DataError, match=r"all 9 samples have one caption, 'a photo'"):
        check_captions(samples, ClipObjective())
    folders = {"kind": "folder", "train": _classes(tmp_path / "one", ant=9)}
    one = open_split(_recipe(folders, "classify").data, "train")
    with pytest.raises(DataError, match="all samples are of the class 'ant'"):
        check_captions(one, ClassifyObjective())
    with pytest.raises(DataError, match="all samples are of the class 'ant'"):
        check_captions(ClassCaptions(one, ["a {}"]), ClipObjective())
    assert "all samples are of the class 'ant'" in _said(_recipe(folders, "classify"))
    templates = {"kind": kind, "templates": ["a {}"]}
    assert "of the class 'ant'" in _said(_recipe(folders, kind, objective=templates))
    assert "no sample has a caption" in _said(_recipe(folders, kind))
    words = {"kind": "folder", "train": _captioned(tmp_path / "words", _words(9))}
    assert "no sample has a class, and classify needs" in _said(_recipe(words, "classify"))
    check_splits(_recipe(words, kind))
    with pytest.raises(RecipeError, match=r"optim\.global_batch: 1: a pair alone has no negatives"):
        check_recipe(_recipe(words, kind, optim={"lr": 1e-3, "global_batch": 1, "epochs": 1}))


def test_what_is_worth_a_warning(tmp_path: Path) -> None:
    train = _classes(tmp_path / "train", ant=3, Ant=3, bee=2)
    data = {"kind": "folder", "train": train, "val": _classes(tmp_path / "val", bee=1)}
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 10)).save(stream := io.BytesIO(), "JPEG", exif=exif)
    (tmp_path / "train/bee/turned.jpg").write_bytes(stream.getvalue())
    (tmp_path / "train/bee/a.heic").write_bytes(b"x")
    checked, warnings = check_splits(_recipe(data, "classify", evaluate=[{"kind": "classify"}]))
    said = "\n".join(warnings)
    assert "leading zeros alone: 'Ant', 'ant'" in said
    assert "data.val: no sample of 2 of 3 classes (first: Ant)" in said
    assert "data.val: one sample" in said
    assert "data.train: passed over: 1 files that are no pictures (.heic)" in said
    assert checked[0].survey.turned == 1 and checked[0].survey.forms["JPEG L"] == 1
    assert (10, 20) in checked[0].survey.sizes  # upright


def test_the_command_tells_people_and_programs(tmp_path: Path) -> None:
    turned = "be\u202ee"  # what it says is JSON all the same, and steers no terminal
    paths = {s: _classes(tmp_path / s, **{"ant": 4, turned: 3}) for s in ("train", "val")}
    recipe = tmp_path / "r.yaml"
    values = _recipe({"kind": "folder", **paths}, "classify", evaluate=[{"kind": "classify"}])

    recipe.write_text(dump_recipe(values))
    done = CliRunner().invoke(app, ["check", str(recipe)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["ok"] and found["data"]["data.val"]["counts"] == {"ant": 4, turned: 3}
    assert "\u202e" not in done.stdout + done.stderr
    assert found["steps"] == 1 and found["gib"]["total"] > 0
    assert "ant/0.png: class 'ant'" in done.stderr and "warning: data.val: 7 of 7" in done.stderr
    _classes(tmp_path / "val", moth=1)
    failed = CliRunner().invoke(app, ["check", str(recipe)])
    assert failed.exit_code == 1 and isinstance(failed.exception, SystemExit | DataError)


def test_a_comparison_is_checked_too(tmp_path: Path) -> None:
    paths = {s: _classes(tmp_path / s, ant=4, bee=3) for s in ("train", "val", "test")}
    retained = {"kind": "folder", "val": paths["val"], "test": paths["test"]}
    recipe = tmp_path / "c.yaml"
    values = {
        "name": "c",
        "model": {**MODEL, "image_weights": "none"},
        "init": {"from": str(tmp_path)},
        "data": {"kind": "folder", **paths},
        "objective": {"kind": "classify"},
        "optim": {"lr": 1e-3, "global_batch": 8, "epochs": 1},
        "evaluate": [{"kind": "classify"}],
        "compare": {"retain": [{"kind": "zero_shot", "data": retained}], "budgets": [2]},
    }
    values.pop("model")
    recipe.write_text(json.dumps(values))
    uses = [(use.key, use.split) for use in splits_of(load_any(recipe))]
    assert set(uses) == {
        *(("data", split) for split in ("train", "val", "test")),
        *(("compare.retain.0.data", split) for split in ("val", "test")),
    }
    _classes(tmp_path / "test", moth=1)
    assert "'moth'" in _said(load_any(recipe))


def test_rows_of_one_picture_in_a_large_set_are_seen_in_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sources.shards", "checks.survey"):
        monkeypatch.setattr(f"ptft.data.{module}.AUTO_BYTES", 100)
    monkeypatch.setattr("ptft.data.checks.survey.COMPARED", 50)
    files: dict[str, bytes] = {}
    for number in range(120):
        files |= {f"{number}.png": picture(number // 2), f"{number}.txt": f"t{number}".encode()}
    data = {"kind": "shards", "train": str(write_tar(tmp_path / "t.tar", files))}
    _, warnings = check_splits(_recipe(data))
    said = "\n".join(warnings)
    assert "25 of 50 pictures looked at are those of other rows" in said
    assert "(first: t.tar/1 is t.tar/0)" in said and "data.join: bytes makes one sample" in said
    assert "pictures of 0.0 GiB: equal ones are not looked for" in said
    assert not check_splits(_recipe({**data, "join": "bytes"}))[1][1:]


def test_stages_of_other_classes_are_told_before_the_first_is_trained(tmp_path: Path) -> None:
    folders = {"one": {"ant": 3, "bee": 3}, "two": {"ant": 3, "cow": 3}}
    stages = []
    for name, counts in folders.items():
        paths = {s: _classes(tmp_path / name / s, **counts) for s in ("train", "val")}
        asked = {"kind": "zero_shot"}
        stages.append({"name": name, "data": {"kind": "folder", **paths}, "evaluate": asked})
    values = {
        "name": "r",
        "model": MODEL,
        "objective": {"kind": "clip", "templates": ["a {}"]},
        "optim": {"lr": 1e-3, "global_batch": 4, "epochs": 1, "precision": "fp32"},
        "stages": stages,
    }
    said = _said(parse_recipe({**values, "guard": {"replay": 0.5}}, "r"))
    assert "'bee' is a class of one of it and stages.one.data.train: guard.replay learns" in said
    check_splits(parse_recipe({**values, "guard": {"replay": 0.0}}, "r"))
    for stage in stages:
        stage["data"] |= {"classes": ["ant", "bee", "cow"]}  # type: ignore[operator]
    check_splits(parse_recipe({**values, "guard": {"replay": 0.5}}, "r"))
