"""Rows of one picture are one sample with several captions, and no split parts a picture."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from ptft.compare.metric import measure_metric
from ptft.data import BatchSpec, SampleSet, open_split, train_batches
from ptft.data.fields.joining import first_rows, group_rows, same_bytes
from ptft.data.packing.pack import PackSettings, pack
from ptft.data.sources.mixture import Mixture
from ptft.data.tar.index_file import write_index
from ptft.errors import SampleError
from ptft.evaluate import evaluate
from ptft.positives import pair_groups
from ptft.preprocess import ImagePreprocess
from ptft.recipe import RetrievalEvaluation
from ptft.recipe.data import DataSection, FolderData, ShardsData, TableData
from tests.support.shards import write_tar
from tests.support.tiny import arch_section, build

PICTURES, EACH = 12, 3


def _png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 24), (number * 9, 255 - number * 9, 40)).save(stream, "PNG")
    return stream.getvalue()


PNG = [_png(number) for number in range(PICTURES)]
ROWS = [(i, f"picture {i} in words {j}") for j in range(EACH) for i in range(PICTURES)]
"""A picture's rows lie apart."""


def _csv(root: Path) -> DataSection:
    for number, data in enumerate(PNG):
        (root / f"{number}.png").write_bytes(data)
    with (root / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "text"])
        writer.writerows((f"{'./' if n % 2 else ''}{i}.png", t) for n, (i, t) in enumerate(ROWS))
    return FolderData(train=str(root))


def _copies(root: Path) -> DataSection:
    """A copy of the picture for each of its captions."""
    rows = []
    for number, (i, text) in enumerate(ROWS):
        (root / f"{number}.png").write_bytes(PNG[i])
        rows.append({"file_name": f"{number}.png", "text": text})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FolderData(train=str(root))


def _parquet(root: Path) -> DataSection:
    columns = {"image": [PNG[i] for i, _ in ROWS], "text": [text for _, text in ROWS]}
    pq.write_table(pa.table(columns), root / "t.parquet", row_group_size=7)
    return TableData(train=str(root / "t.parquet"))


def _struct(root: Path) -> DataSection:
    cells = [{"bytes": PNG[i], "path": f"{n}.png"} for n, (i, _) in enumerate(ROWS)]
    pq.write_table(pa.table({"image": cells, "text": [t for _, t in ROWS]}), root / "t.parquet")
    return TableData(train=str(root / "t.parquet"))


def _disk(root: Path) -> DataSection:
    datasets.disable_progress_bars()
    kinds = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    pictures = [Image.open(io.BytesIO(PNG[i])) for i, _ in ROWS]  # as Python objects
    rows = {"image": pictures, "text": [text for _, text in ROWS]}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(str(root / "disk"))
    return TableData(train=str(root / "disk"))


def _tar(root: Path) -> DataSection:
    half = len(ROWS) // 2
    for name, part in (("a", ROWS[:half]), ("b", ROWS[half:])):
        files: dict[str, bytes] = {}
        for row, (i, text) in enumerate(part):
            files |= {f"{row:03}.png": PNG[i], f"{row:03}.txt": text.encode()}
        write_tar(root / f"{name}.tar", files)
    return ShardsData(train=str(root / "*.tar"))


def _indexed(root: Path) -> DataSection:
    section = _tar(root)
    for path in root.glob("*.tar"):
        write_index(path)
    return section


def _fetched(root: Path) -> DataSection:
    _indexed(root)
    return ShardsData(train=f"file://{root}/*.tar", cache=str(root / "cache"))


def _by_field(root: Path) -> DataSection:
    """Told by a field, where the bytes differ."""
    files: dict[str, bytes] = {}
    for row, (i, text) in enumerate(ROWS):
        values = {"image_id": i, "text": text}
        files |= {f"{row}.png": PNG[i] + b"\0" * row, f"{row}.json": json.dumps(values).encode()}
    write_tar(root / "t.tar", files)
    return ShardsData(train=str(root / "t.tar"), captions=["{text}"], picture_id="image_id")


SOURCES = {
    make.__name__[1:]: make
    for make in (_csv, _copies, _parquet, _struct, _disk, _tar, _indexed, _fetched, _by_field)
}


def _pictures(samples: SampleSet) -> list[bytes]:
    return [samples[i].image.tobytes() for i in range(len(samples))]


@pytest.mark.parametrize("source", SOURCES)
def test_rows_of_one_picture_are_one_sample(tmp_path: Path, source: str) -> None:
    section = SOURCES[source](tmp_path)
    samples = open_split(section, "train")
    assert len(samples) == PICTURES
    for index in range(PICTURES):
        assert samples.captions(index) == tuple(
            f"picture {index} in words {j}" for j in range(EACH)
        )
        shown = Image.open(io.BytesIO(PNG[index])).tobytes()
        assert samples[index].image.tobytes() == shown
    assert any(f"{len(ROWS)} rows are {PICTURES} samples" in line for line in samples.notes(1))
    held = section.model_copy(update={"hold_out": 0.25})
    train, val = open_split(held, "train"), open_split(held, "val")
    assert (len(train), len(val)) == (9, 3)
    assert not set(_pictures(train)) & set(_pictures(val))
    apart = open_split(section.model_copy(update={"join": "none", "picture_id": None}), "train")
    assert len(apart) == len(ROWS)


def test_pictures_of_two_classes_stay_apart_and_are_held_out_together(tmp_path: Path) -> None:
    columns = {
        "image": [PNG[i % PICTURES] for i in range(24)],
        "text": [f"text {i}" for i in range(24)],
        "kind": ["a"] * 12 + ["b"] * 12,
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    section = TableData(train=str(tmp_path / "t.parquet"), label="kind")
    samples = open_split(section, "train")
    assert len(samples) == 24
    assert (
        "12 of 24 samples have the picture of another sample; data.join: bytes"
        in samples.notes(1)[0]
    )
    held = section.model_copy(update={"hold_out": 0.25})
    train, val = open_split(held, "train"), open_split(held, "val")
    assert len(train) + len(val) == 24 and len(val) > 0
    assert not set(_pictures(train)) & set(_pictures(val))


def test_equal_pictures_of_class_folders_are_held_out_together(tmp_path: Path) -> None:
    for number in range(24):
        path = tmp_path / ("cat" if number < 12 else "dog") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG[number // 2])  # each twice
    section = FolderData(train=str(tmp_path), hold_out=0.34)
    train, val = open_split(section, "train"), open_split(section, "val")
    assert len(train) + len(val) == 24 and len(val) == 8
    assert not set(_pictures(train)) & set(_pictures(val))


def test_a_large_set_is_joined_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("parquet.rows", "sources.shards", "sources.folder", "sources.hub_rows"):
        monkeypatch.setattr(f"ptft.data.{module}.AUTO_BYTES", 100)
    for name in ("copies", "parquet", "disk", "tar"):
        (tmp_path / name).mkdir()
        section = SOURCES[name](tmp_path / name)
        samples = open_split(section, "train")
        assert len(samples) == len(ROWS)
        assert any("equal ones are not looked for; data.join: bytes" in s for s in samples.notes(1))
        assert len(open_split(section.model_copy(update={"join": "bytes"}), "train")) == PICTURES


def test_a_packed_set_is_the_joined_one(tmp_path: Path) -> None:
    (tmp_path / "tar").mkdir()
    section = _tar(tmp_path / "tar")
    assert isinstance(section, ShardsData)
    packed = pack(section, tmp_path / "out", PackSettings(256, samples_per_shard=5), workers=0)
    samples = open_split(packed.section, "train")
    assert len(samples) == PICTURES
    assert samples.captions(3) == tuple(f"picture 3 in words {j}" for j in range(EACH))


def test_broken_rows_are_nobodys_equal(tmp_path: Path) -> None:
    page = b"<html>not found, as a server says it</html>"
    rows = {"image": [b"?", b"?", None, PNG[0], None, page, page], "text": list("abcdefg")}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    samples = open_split(TableData(train=str(tmp_path / "t.parquet")), "train")
    assert len(samples) == 7
    with pytest.raises(SampleError):
        samples[0].image.load()


def test_a_batch_knows_which_pairs_show_one_picture(tmp_path: Path) -> None:
    samples = open_split(_csv(tmp_path), "train")
    batches = train_batches(
        samples,
        BatchSpec(
            preprocess=ImagePreprocess(size=(16, 16)),
            size=20,
            tokenizer=lambda texts: np.array([[len(text)] for text in texts]),
        ),
        start=0,
        end=40,
        workers=0,
    )
    pairs = 0
    for batch in batches:
        assert batch.caption_ids is not None and batch.images is not None
        groups = pair_groups(batch.caption_ids)
        for a in range(20):
            for b in range(20):
                same = torch.equal(batch.images[a], batch.images[b])
                pairs += same and a != b
                assert (groups[a] == groups[b]).item() == same
    assert pairs > 0  # 20 draws of 12 pictures: a batch spans two epochs
    mixed = Mixture([samples, samples], ["a", "b"], [1, 1])
    assert len({mixed.picture_of(index) for index in range(len(mixed))}) == 2 * PICTURES


def test_groups_are_what_a_chain_of_equals_links() -> None:
    def slow(ids: list[list[int]]) -> list[list[bool]]:
        linked = [[bool(set(enumerate(a)) & set(enumerate(b))) for b in ids] for a in ids]
        for k in range(len(ids)):
            for i in range(len(ids)):
                for j in range(len(ids)):
                    linked[i][j] |= linked[i][k] and linked[k][j]
        return linked

    generator = torch.Generator().manual_seed(0)
    for most in (3, 6, 12, 40):
        ids = torch.randint(0, most, (14, 2), generator=generator)
        groups = pair_groups(ids)
        assert (groups[:, None] == groups[None, :]).tolist() == slow(ids.tolist())
    alone = torch.tensor([4, 4, 7])
    assert pair_groups(alone) is alone


def test_rows_are_grouped_in_the_order_of_their_first() -> None:
    groups = group_rows(first_rows(["b", "a", None, "b", None, "a"]))
    assert groups is not None
    assert [groups.rows(i) for i in range(len(groups))] == [[0, 3], [1, 5], [2], [4]]
    assert groups.firsts.tolist() == [0, 1, 2, 4]
    assert group_rows(np.arange(3)) is None
    assert group_rows(np.zeros(3, np.int64), np.arange(3)) is None
    with pytest.raises(IndexError):
        groups.rows(4)


def test_only_what_may_be_equal_is_read_whole() -> None:
    bodies = [b"x" * 89 + b"1", b"y" * 90, b"x" * 89 + b"1", b"z" * 200, b"w" * 90, b"y" * 90]
    data = [b"GIF89a" + body for body in bodies]
    read: list[int] = []

    def whole(row: int) -> bytes:
        read.append(row)
        if row == 5:
            raise SampleError("gone", "unreadable")
        return data[row]

    sizes = np.array([len(one) for one in data])
    found = same_bytes(sizes, lambda row: data[row][-64:], whole)
    assert found.tolist() == [0, 1, 0, 3, 4, 5]
    assert read == [0, 1, 2, 5]  # the tail of row 4 and the size of row 3 tell


@pytest.mark.parametrize("join", ["none", "bytes"])
def test_two_ways_to_join_are_an_error(join: Any) -> None:
    with pytest.raises(ValidationError, match="picture_id: 'id' beside join"):
        ShardsData(train="x", picture_id="id", join=join)


def test_rows_with_a_class_are_joined_when_asked_and_retrieved_as_one_picture(
    tmp_path: Path,
) -> None:
    """Several captions and a class a picture: a sample each, as a question and its answer are."""
    columns = {
        "image": [PNG[i] for i, _ in ROWS],
        "text": [text for _, text in ROWS],
        "kind": ["ab"[i % 2] for i, _ in ROWS],
        "id": [i for i, _ in ROWS],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    section = TableData(train=str(tmp_path / "t.parquet"), val="x", label="kind")
    section = section.model_copy(update={"val": section.train})
    apart = open_split(section, "train")
    assert len(apart) == len(ROWS)
    for way in ({"join": "bytes"}, {"picture_id": "id"}):
        joined = open_split(section.model_copy(update=way), "train")
        labels = joined.labels()
        assert len(joined) == PICTURES and labels is not None and len(labels) == PICTURES
        assert len(joined.captions(0)) == EACH and joined[1].label == 1
    model = build(arch_section())
    items = [RetrievalEvaluation(ks=[1, 5])]
    found = evaluate(model, items, section, seed=0, workers=0)["retrieval"]
    one = evaluate(model, items, section.model_copy(update=way), seed=0, workers=0)["retrieval"]
    assert (found["images"], found["captions"]) == (PICTURES, len(ROWS))
    assert found == one
    samples = open_split(section, "val")
    for metric in ("i2t_recall@5", "t2i_recall@5"):
        assert measure_metric(model, items[0], samples, metric).value == pytest.approx(
            found[metric]
        )
    plain = section.model_copy(update={"join": "none"})
    assert evaluate(model, items, plain, seed=0, workers=0)["retrieval"]["images"] == len(ROWS)
