"""What ``ptft data look`` guesses of a path, and what it says where there is nothing to guess."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from ptft.errors import DataError, RecipeError
from ptft.look import data_page
from ptft.look.guess import guess_section
from tests.support.looking import noise, put, read, rows
from tests.support.picture_files import encode


def write_tar(path: Path, count: int, seed: int, **files: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index in range(count):
            own = {"png": encode(noise(seed + index), "PNG"), **files}
            for extension, data in own.items():
                entry = tarfile.TarInfo(f"s{index}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return path


def test_tars_are_parted_by_their_names_and_classes_named_by_the_file_beside(
    tmp_path: Path,
) -> None:
    for number in range(3):
        write_tar(tmp_path / f"x-train-{number:03}.tar", 2, 10 * number, cls=b"1", txt=b"a thing")
    write_tar(tmp_path / "x-val-000.tar", 2, 100, cls=b"0", txt=b"a thing")
    (tmp_path / "classes.txt").write_text("zero\none\n")
    looked = data_page(str(tmp_path))
    assert yaml.safe_load(looked.section)["data"] == {
        "kind": "shards",
        "train": str(tmp_path / "x-train-*.tar"),
        "val": str(tmp_path / "x-val-000.tar"),
        "classes": str(tmp_path / "classes.txt"),
    }
    table = rows(read(looked))
    assert "one 6 0" in table
    assert "zero 0 2" in table
    same = data_page(str(tmp_path / "x-{train,val}-*.tar"))
    assert same.section == looked.section
    assert data_page(str(tmp_path / "x-val-000.tar")).said[0] == "by the names of the files: val"


def test_fields_of_json_in_tars_are_found(tmp_path: Path) -> None:
    values = json.dumps({"caption": "a thing", "category": "things", "width": 3}).encode()
    guess = guess_section(str(write_tar(tmp_path / "a.tar", 1, 0, json=values)))
    assert guess.values["captions"] == ["{caption}"]
    assert guess.values["label"] == "category"
    assert "captions: 'caption'" in guess.said


def test_parquet_and_texts_are_guessed_by_their_columns(tmp_path: Path) -> None:
    cells = [{"bytes": encode(noise(index), "PNG"), "path": None} for index in range(4)]
    table = pyarrow.table(
        {"img": cells, "en": ["one", "two", "three", "two"], "label": ["a", "b", "a", "b"]}
    )
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "data" / "train-00000-of-00001.parquet")
    looked = data_page(str(tmp_path))
    data = yaml.safe_load(looked.section)["data"]
    assert (data["image"], data["captions"], data["label"]) == ("img", ["{en}"], "label")
    page = read(looked)
    assert "data.train 4 2 3 of 4 4 PNG RGB to learn from" in rows(page)
    drawing = next(one for one in page.all("svg") if "captions" in (one.get("aria-label") or ""))
    assert drawing["aria-label"] == "Length of captions: 4 from 3 to 5"

    lines = [{"sentence": f"text {n}", "class": "xy"[n % 2]} for n in range(4)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    texts = data_page(str(path))
    section = yaml.safe_load(texts.section)["data"]
    assert section == {
        "kind": "table",
        "train": str(path),
        "captions": ["{sentence}"],
        "label": "class",
        "image": None,
    }
    assert not texts.problems
    assert not read(texts).all("img")
    assert "text 3" in read(texts).words


def test_a_metadata_table_is_guessed_with_its_columns(tmp_path: Path) -> None:
    put(tmp_path / "1.png", noise(1))
    put(tmp_path / "2.png", noise(2))
    (tmp_path / "metadata.csv").write_text("file_name,title,kind\n1.png,One,a\n2.png,Two,b\n")
    for target in (tmp_path, tmp_path / "metadata.csv"):
        looked = data_page(str(target), ["data.label=kind"])
        data = yaml.safe_load(looked.section)["data"]
        assert data == {
            "kind": "folder",
            "train": str(tmp_path),
            "captions": ["{title}"],
            "label": "kind",
        }
        assert "One" in read(looked).words


def test_a_dataset_saved_by_datasets_is_a_table_by_its_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict
    from datasets import Image as Picture

    def rows_of(seed: int) -> Dataset:
        cells = [{"bytes": encode(noise(seed + index), "PNG"), "path": None} for index in range(3)]
        made = Dataset.from_dict({"image": cells, "text": [f"text {seed + n}" for n in range(3)]})
        return made.cast_column("image", Picture())

    DatasetDict(train=rows_of(0), validation=rows_of(10)).save_to_disk(str(tmp_path / "set"))
    looked = data_page(str(tmp_path / "set"))
    data = yaml.safe_load(looked.section)["data"]
    assert data == {"kind": "table", "train": str(tmp_path / "set"), "val": str(tmp_path / "set")}
    assert "data.val 3 – 3 of 3 3 PNG RGB to choose by" in rows(read(looked))


@pytest.mark.parametrize(
    ("names", "train"),
    [
        (("train", "car", "bus"), "."),  # a class may be a train
        (("train", "val", "notes"), "train"),
        (("training", "testing"), "training"),
    ],
)
def test_folders_are_splits_or_classes(tmp_path: Path, names: tuple[str, ...], train: str) -> None:
    for place, name in enumerate(names):
        put(tmp_path / name / "x" / "1.png", noise(place))
    assert Path(guess_section(str(tmp_path)).values["train"]) == tmp_path / train


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("{}/sett", "TARGET: '{}/sett': no such file or folder; did you mean '{}/set'?"),
        ("finetune/grocry", "did you mean 'finetune/grocery'"),
        ("no such thing", "TARGET: 'no such thing': no such file, folder or recipe (ptft ls)"),
        ("{}/x.zip", "x.zip; allowed: a recipe, a folder, or files of one of .tar, .parquet"),
        ("{}/empty", "{}/empty: nothing that is read as data; there is: nothing; allowed: one"),
        ("{}/sets", "TARGET: '{}/sets': sets lie in its folders: a, b; name one: {}/sets/a"),
        ("{}/both", "train and training are both train"),
        ("{}/flat", "nothing that is read as data; there is: 1.png; allowed: one folder a class"),
    ],
)
def test_what_is_no_target_is_one_clear_error(tmp_path: Path, target: str, error: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "empty").mkdir()
    put(tmp_path / "x.zip", b"x")
    put(tmp_path / "flat" / "1.png", noise(1))
    for name in ("a", "b"):
        write_tar(tmp_path / "sets" / name / "0.tar", 1, 0)
    for name in ("train", "training"):
        put(tmp_path / "both" / name / "a" / "1.png", noise(1))
    with pytest.raises((RecipeError, DataError)) as refused:
        data_page(target.replace("{}", str(tmp_path)))
    assert error.replace("{}", str(tmp_path)) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_overrides_of_a_path_are_keys_of_its_section(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.png", noise(1))
    with pytest.raises(RecipeError, match=r"data\.max_skiped: unknown key; did you mean"):
        data_page(str(tmp_path), ["data.max_skiped=1"])
    with pytest.raises(RecipeError, match=r"optim: unknown key"):
        data_page(str(tmp_path), ["optim.lr=1"])
