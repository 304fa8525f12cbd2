"""Readers of recipes, patterns, tables, classes, and of what a run says of itself."""

import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import yaml
from hypothesis import strategies as st

from ptft.data.fields.classes import load_classes
from ptft.data.open import open_split
from ptft.errors import PtftError, SampleError
from ptft.model.licence import run_licence
from ptft.recipe.data import BoxesData, FolderData, TableData
from ptft.recipe.load import load_any
from ptft.recipe.paths import expand_paths
from ptft.runs.folder import read_run
from tests.fuzz.draw import bytes_near, to_json, values_near
from tests.fuzz.harness import Files, Target
from tests.fuzz.targets_packed import make_picture, read_all

__all__ = ["TARGETS"]

# recipes

_RECIPES: list[dict[str, Any]] = [
    {
        "name": "a",
        "seed": 1,
        "model": {"arch": {"name": "ViT-B-32"}},
        "data": {"kind": "scenes", "train": 64},
        "optim": {"lr": 0.001, "epochs": 1},
        "run": {"dir": "runs/a", "workers": 0},
    },
    {
        "name": "b",
        "init": {"from": "models/a"},
        "data": {"kind": "shards", "train": "a-{0..3}.tar", "cache": "c", "cache_gb": 1.5},
        "evaluate": [{"kind": "retrieval", "split": "val"}],
    },
    {
        "name": "c",
        "data": {
            "kind": "mixture",
            "parts": [{"data": {"kind": "folder", "train": "x", "classes": ["a", "b"]}}],
        },
        "stages": [{"name": "s", "data": {"kind": "table", "train": "a.parquet"}}],
        "compare": {"seeds": 2},
    },
]
_RECIPE_WORDS = (b"*a", b"&a ", b"<<: *a\n", b"!!binary ", b"? ", b"- ", b": ", b"{a: ", b"1e400")


def _recipe_files() -> st.SearchStrategy[Files]:
    texts = [yaml.safe_dump(recipe).encode() for recipe in _RECIPES]
    written = values_near(_RECIPES, ("optim", "run", "distill", "early_stop", "guard")).map(to_json)
    near = bytes_near(texts, _RECIPE_WORDS)
    return st.one_of(written, near).map(lambda data: {"recipe.yaml": data})


def _read_recipe(folder: Path) -> None:
    load_any(folder / "recipe.yaml")


# patterns

_PATTERNS = st.text(alphabet="a0189{},.*?[]-/\0~é\\", max_size=24)
_RANGES = st.builds(
    "a{{{}..{}{}}}{}".format,
    st.integers(-(10**12), 10**12),
    st.integers(-(10**12), 10**12),
    st.sampled_from(("", "..3", "..0", "..-1", "..1000000")),
    st.sampled_from(("", "{0..999999}", "{a,b{c,d}}" * 9, "{,}" * 40, ".tar")),
)


def _read_patterns(folder: Path) -> None:
    expand_paths((folder / "pattern").read_text(encoding="utf-8"), "data.train")


# tables


@cache
def _parquets() -> tuple[bytes, ...]:
    found = []
    for codec, nested in (("none", False), ("snappy", True), ("zstd", False)):
        pictures: Any = [make_picture(number) for number in range(6)]
        if nested:
            pictures = [{"bytes": data, "path": None} for data in pictures]
        table = pyarrow.table(
            {
                "image": pictures,
                "text": ["a", "b", None, "a", "a", "a"],
                "label": [0, 1, 1, -1, 0, None],
                "file_name": [f"{number}.png" for number in range(6)],
            }
        )
        stream = io.BytesIO()
        pyarrow.parquet.write_table(table, stream, row_group_size=4, compression=codec)
        found.append(stream.getvalue())
    return tuple(found)


def _parquet_files() -> st.SearchStrategy[Files]:
    words = (b"PAR1", b"\x15\x80\x80\x80\x80\x10", b"\x26\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01")
    return bytes_near(_parquets(), words).map(
        lambda data: {"a.parquet": data, "f/metadata.parquet": data, "f/0.png": make_picture()}
    )


def _read_parquet(folder: Path) -> None:
    for section in (
        TableData(train=str(folder / "a.parquet"), image="image", captions=["{text}"]),
        TableData(train=str(folder / "a.parquet"), image=None, captions=["{text}"], label="label"),
        FolderData(train=str(folder / "f")),
    ):
        try:
            read_all(open_split(section, "train"))
        except SampleError:
            continue


@cache
def _saved() -> dict[str, bytes]:
    """A small folder that ``datasets`` saved: a text, a picture, a label of each row."""
    rows = {"text": ["a", "bc"] * 3, "image": [make_picture()] * 6, "label": [0, 1] * 3}
    with tempfile.TemporaryDirectory() as place:
        datasets.Dataset.from_dict(rows).save_to_disk(place)
        return {path.name: path.read_bytes() for path in Path(place).iterdir()}


def _saved_files() -> st.SearchStrategy[Files]:
    stream = next(name for name in _saved() if name.endswith(".arrow"))
    state = json.loads(_saved()["state.json"])
    values = values_near([state], ("_data_files", "filename", "../a.arrow", stream)).map(to_json)
    words = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x40", b"\xff\xff\xff\x7f", b"\x08\x00")
    drawn = bytes_near((_saved()[stream],), words).map(lambda data: {stream: data})
    near = st.one_of(drawn, drawn, values.map(lambda data: {"state.json": data}))
    return near.map(lambda changed: {**_saved(), **changed})


def _read_saved(folder: Path) -> None:
    for section in (
        TableData(train=str(folder), image="image", captions=["{text}"]),
        TableData(train=str(folder), image=None, captions=["{text}"], label="label"),
    ):
        try:
            read_all(open_split(section, "train"))
        except SampleError:
            continue


_CSVS = (
    b"file_name,text\n0.png,a red square\n1.png,\"a, b\"\n0.png,['x']\n",
    b'\xef\xbb\xbffile_name,text,label\r\n0.png,"[""a"", ""b""]",x\r\n',
)
_LINES: list[Any] = [{"file_name": "0.png", "text": ["a", "b"], "label": 1}]


def _table_files() -> st.SearchStrategy[Files]:
    plain = bytes_near(_CSVS, (b'"', b",", b"\n", b"\r", b";", b"\t", b'"[')).map(
        lambda data: {"metadata.csv": data}
    )
    rows = st.lists(values_near(_LINES, ("x",)).map(to_json), min_size=1, max_size=3)
    lines = st.one_of(
        rows.map(b"\n".join),
        bytes_near([json.dumps(_LINES[0]).encode()]),
    ).map(lambda data: {"metadata.jsonl": data})
    return st.one_of(plain, lines).map(lambda files: {**files, "0.png": make_picture()})


def _read_table(folder: Path) -> None:
    read_all(open_split(FolderData(train=str(folder)), "train"))
    found = next(iter(folder.glob("metadata.*")))
    read_all(open_split(TableData(train=str(found), image=None, captions=["{text}"]), "train"))


# boxes

_COCO: list[Any] = [
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
    }
]
_VOC = (
    b"<annotation><filename>a.png</filename><size><width>8</width><height>8</height></size><object>"
    b"<name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    b"</object></annotation>"
)
_XML = (
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    b"&b;",
    b"<a>" * 999,
    b"<object/>",
    b"<![CDATA[",
    b"\xc2",
)
_YOLO = (b"path: .\ntrain: .\nnames: [cat, dog]\n", b"train: [list.txt]\nnames: {0: cat, 1: dog}\n")


def _boxes_files() -> st.SearchStrategy[Files]:
    keys = ("neg_category_ids", "coco_url", "bbox", "width")
    written = values_near(_COCO, keys).map(to_json)
    near = st.one_of(written, bytes_near([json.dumps(_COCO[0]).encode()]))
    return st.fixed_dictionaries({
        "a.png": st.just(make_picture()),
        "a.json": near,
        "voc/a.xml": bytes_near([_VOC, _VOC.decode().encode("utf-16")], _XML),
        "data.yaml": bytes_near(_YOLO, (b"../", b"/etc", b"\n- ", b"names: ")),
        "list.txt": bytes_near([b"a.png\n"], (b"../", b"/", b".png")),
        "a.txt": bytes_near([b"0 0.5 0.5 0.1 0.1\n1 .1 .1 .2 .2 .3 .1\n"], (b" nan", b" -1e39")),
    })  # fmt: skip


def _read_boxes(folder: Path) -> None:
    for name in ("a.json", "voc", "data.yaml"):
        try:
            read_all(open_split(BoxesData(train=str(folder / name)), "train"))
        except PtftError:
            continue


# classes

_CLASSES: list[Any] = [
    ["a", "b"],
    [{"id": 0, "text": "a"}, {"id": 1, "name": "b"}],
    [{"name": "a"}],
]


def _classes_files() -> st.SearchStrategy[Files]:
    written = st.one_of(
        values_near(_CLASSES).map(to_json),
        bytes_near([json.dumps(values).encode() for values in _CLASSES]),
    ).map(lambda data: {"classes.json": data})
    listed = bytes_near([b"a\nb\n", "é\r\nß".encode()]).map(lambda data: {"classes.txt": data})
    return st.one_of(written, listed)


def _read_classes(folder: Path) -> None:
    load_classes(str(next(iter(folder.glob("classes.*")))))


# what a run says of itself

_RUN: list[Any] = [
    {
        **{"name": "a", "recipe_digest": "0", "status": "stopped", "started": "2026", "step": 3},
        **{"versions": {"ptft": "1"}, "faults": {"corrupt": 1}, "notes": ["a"], "seconds": 1.5},
        **{"test_reads": [{"at": "x", "read": ["a"]}], "best": {"step": 1}, "features": None},
    }
]


def _read_run(folder: Path) -> None:
    read_run(folder)
    run_licence(folder)


TARGETS: dict[str, Target] = {
    "recipe": Target(_recipe_files(), _read_recipe),
    "patterns": Target(
        st.one_of(_PATTERNS, _RANGES).map(lambda text: {"pattern": text.encode()}), _read_patterns
    ),
    "parquet": Target(_parquet_files(), _read_parquet),
    "saved": Target(st.deferred(_saved_files), _read_saved),
    "table": Target(_table_files(), _read_table),
    "boxes": Target(_boxes_files(), _read_boxes),
    "classes": Target(_classes_files(), _read_classes),
    "run.json": Target(
        st.tuples(values_near(_RUN, ("licence", "x")).map(to_json), _recipe_files()).map(
            lambda drawn: {"run.json": drawn[0], **drawn[1]}
        ),
        _read_run,
    ),
}
"""Name -> what is read."""
