"""Parquet and Hugging Face datasets, by number and streamed."""

import pickle
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from ptft.data.open import open_split
from ptft.data.parquet import rows as parquet
from ptft.data.reading.order import Order
from ptft.errors import DataError, RecipeError, SampleError
from ptft.recipe.data import TableData
from tests.support.saved_tables import grey_of, save_dataset
from tests.support.shards import picture, write_parquet


def test_parquet_is_read_back(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a-0.parquet", 25)
    write_parquet(tmp_path / "a-1.parquet", 7, first=25)
    section = TableData(
        train=str(tmp_path / "a-{0..1}.parquet"),
        val=[str(tmp_path / "a-1.parquet")],
        captions=["{text}", "{tags}", "{text}: {tags}"],
        label="kind",
    )
    samples = open_split(section, "train")
    assert len(samples) == 32
    for index in (31, 0, 24, 25, 10):
        assert grey_of(samples, index) == index
        assert samples[index].captions == (
            f"grey {index}",
            f"t{index}",
            "grey",
            f"grey {index}: t{index}, grey",
        )
        assert samples[index].label == index % 3
    assert samples.classes == ["0", "1", "2"]
    labels = samples.labels()
    assert labels is not None and labels.tolist() == [i % 3 for i in range(32)]
    assert samples.name(26) == "a-1.parquet/0/1"
    val = open_split(section, "val")
    assert len(val) == 7 and val.classes == samples.classes
    copied = pickle.loads(pickle.dumps(samples))
    assert copied[12].captions == samples[12].captions


def test_a_column_of_plain_bytes_will_do(tmp_path: Path) -> None:
    table = pyarrow.table({"jpg": [picture(9), None, b"x"], "text": ["a", "b", "c"]})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    samples = open_split(TableData(train=str(tmp_path / "p.parquet"), image="jpg"), "train")
    assert grey_of(samples, 0) == 9
    with pytest.raises(SampleError, match=r"p.parquet/0/1: it has no picture: jpg is null"):
        samples[1]
    with pytest.raises(SampleError, match=r"p.parquet/0/2: not a picture"):
        samples[2].image.load()


def test_addresses_and_paths_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(picture(1))
    paths = ["http://127.0.0.1:9/x.png", str(tmp_path / "real.png"), "/etc/hostname"]
    rows = [{"image": {"bytes": None, "path": path}, "text": "t"} for path in paths]
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", struct), ("text", pyarrow.string())])
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    for streaming in (False, True):
        section = TableData(train=str(tmp_path / "p.parquet"), streaming=streaming)
        samples = open_split(section, "train")
        for index in range(3):
            with pytest.raises(SampleError, match="paths and addresses are not followed"):
                samples[index]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    saved = datasets.Dataset(table, info=datasets.DatasetInfo(features=features))
    with pytest.raises(Exception, match=r"127\.0\.0\.1|No such file|not found|onnect"):
        saved[0]  # datasets itself would fetch it
    from ptft.data.sources.hub_rows import HubRows
    from ptft.data.sources.table import Table

    held = Table(TableData(train="x"), HubRows(datasets, saved, "x"))
    for index in range(3):
        with pytest.raises(SampleError, match="paths and addresses are not followed"):
            held[index]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": "picture"}, "data.image: 'picture': no such column; allowed: image, kind, tags"),
        ({"captions": ["{txet}"]}, "data.captions: 'txet': no such column; did you mean 'text'"),
        ({"label": "kinds"}, "data.label: 'kinds': no such column; did you mean 'kind'"),
        ({"image": "text"}, "data.image: column 'text' of .* holds string; allowed: encoded bytes"),
        (
            {"label": "kind", "classes": ["a", "b"], "max_skipped": 0},
            r"/0/2: label 2 is not among the classes; .*the labels of 1 of 4 samples",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    path = write_parquet(tmp_path / "p.parquet", 4)
    with pytest.raises(DataError, match=message):
        open_split(TableData(train=str(path), **values), "train")


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("nothing of the kind")
    with pytest.raises(DataError, match=r"data\.train: .*no\.parquet: "):
        open_split(TableData(train=str(tmp_path / "no.parquet")), "train")
    write_parquet(tmp_path / "a.parquet", 2)
    pyarrow.parquet.write_table(pyarrow.table({"image": [b""]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: columns image; .*a\.parquet has image, text"):
        open_split(TableData(train=str(tmp_path / "[ab].parquet")), "train")
    with pytest.raises(RecipeError, match=r"a folder among paths"):
        open_split(TableData(train=[str(tmp_path), str(tmp_path / "a.parquet")]), "train")


def test_a_table_larger_than_memory_is_shuffled_by_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "p.parquet", 200)
    assert open_split(TableData(train=str(path)), "train").window is None
    monkeypatch.setattr(parquet, "KEPT_BYTES", 8000)
    samples = open_split(TableData(train=str(path)), "train")
    assert samples.blocks is not None and samples.blocks.tolist() == list(range(0, 200, 10))
    assert samples.window is not None and 10 < samples.window < 100
    order = Order(200, 0, samples.window, samples.blocks)
    seen = [samples.captions(order[position])[0] for position in range(200)]
    assert sorted(seen) == sorted(f"grey {i}" for i in range(200))


def test_a_saved_dataset_is_read_back(tmp_path: Path) -> None:
    save_dataset(tmp_path / "one")
    section = TableData(
        train=str(tmp_path / "one"), captions=["{text}", "a {class}", "{tags}"], label="kind"
    )
    samples = open_split(section, "train")
    assert samples.classes == ["sea", "sky", "soil"]
    assert len(samples) == 30
    for index in (29, 0, 7):
        assert grey_of(samples, index) == index
        assert samples[index].label == index % 3
        assert samples[index].captions == (
            f"grey {index}",
            f"a {samples.classes[index % 3]}",
            f"t{index}",
            "grey",
        )
    labels = samples.labels()
    assert labels is not None and labels.tolist() == [i % 3 for i in range(30)]
    assert pickle.loads(pickle.dumps(samples))[5].captions == samples[5].captions


def test_splits_of_a_saved_dataset_go_by_their_usual_names(tmp_path: Path) -> None:
    both = datasets.DatasetDict(
        {"train": save_dataset(tmp_path / "x", 6), "validation": save_dataset(tmp_path / "y", 4)}
    )
    both.save_to_disk(str(tmp_path / "both"))
    folder = str(tmp_path / "both")
    section = TableData(train=folder, val=folder, test=folder)
    assert len(open_split(section, "train")) == 6
    assert len(open_split(section, "val")) == 4
    with pytest.raises(DataError, match=r"data\.test: .* no split 'test'.*train, validation"):
        open_split(section, "test")


def test_class_names_written_by_datasets_into_parquet_are_used(tmp_path: Path) -> None:
    save_dataset(tmp_path / "x").to_parquet(str(tmp_path / "p.parquet"))
    samples = open_split(TableData(train=str(tmp_path / "p.parquet"), label="kind"), "train")
    assert samples.classes == ["sea", "sky", "soil"]
    assert samples[4].label == 1
