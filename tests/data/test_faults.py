"""What is skipped: counted by kind, named, survived up to a share, and the same on any machine."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.artifact import RunFiles, read_json
from ptft.checkpoint import checkpoints
from ptft.data.open import open_split
from ptft.data.reading.batch import Skip
from ptft.data.reading.faults import Tally
from ptft.data.reading.loader import eval_batches
from ptft.errors import DataError, SampleError
from ptft.recipe.data import ShardsData
from ptft.recipe.load import recipe_digest
from tests.support.batches import PREPROCESS, batches_of, joined, same
from tests.support.runs import largest_difference, recipe, run
from tests.support.shards import picture, write_tar

FAULTY = {
    "truncated": "corrupt",
    "no_picture": "corrupt",
    "json": "corrupt",
    "zero": "empty",
    "caption": "empty",
    "absent": "empty",
    "large": "oversized",
    "label": "mislabelled",
}


def jpeg(number: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """A JPEG with detail, so that cutting it loses rows."""
    noise = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "jpeg")
    return stream.getvalue()


def write_faulty(path: Path, fine: int = 200) -> ShardsData:
    """Good samples, and one of each fault among them."""
    files: dict[str, bytes] = {}

    def add(key: str, image: bytes | None, caption: bytes = b"noise", label: str = "1") -> None:
        if image is not None:
            files[f"{key}.jpg"] = image
        files[f"{key}.txt"] = caption
        files[f"{key}.cls"] = label.encode()

    for number in range(fine):
        add(f"fine{number}", jpeg(number), f"noise {number}".encode(), str(number % 3))
        if number == fine // 2:
            add("truncated", jpeg(900)[:-700])
            add("no_picture", b"<html>")
            add("json", jpeg(901))
            files["json.json"] = b"{"
            add("zero", b"")
            add("caption", jpeg(902), b" \n")
            add("absent", None)
            add("large", jpeg(903, (200, 100)))
            add("label", jpeg(904), label="7")
    return ShardsData(
        train=str(write_tar(path, files)),
        captions=["{txt} "],
        classes=["a", "b", "c"],
        max_pixels=10_000,
        max_skipped=0.5,
    )


def test_every_kind_of_fault_is_named_and_told_from_the_others(tmp_path: Path) -> None:
    samples = open_split(write_faulty(tmp_path / "t.tar"), "train")
    found = {}
    for index in range(len(samples)):
        try:
            samples[index].image.load()
        except SampleError as error:
            assert str(error).startswith(samples.name(index))
            found[samples.name(index).partition("/")[2]] = error.fault
    assert found == FAULTY


def test_replacements_do_not_depend_on_who_reads(tmp_path: Path) -> None:
    samples = open_split(write_faulty(tmp_path / "t.tar", fine=40), "train")
    alone = joined(batches_of(samples, end=144))
    assert {skip.name.partition("/")[2]: skip.fault for skip in alone["skipped"]} == FAULTY
    assert same(alone, joined(batches_of(samples, end=144, workers=2)))
    for world in (2, 4):
        ranks = [batches_of(samples, end=144, rank=rank, world=world) for rank in range(world)]
        assert same(alone, joined([b for step in zip(*ranks, strict=True) for b in step]))
    left_out = [
        skip.name.partition("/")[2]
        for batch in eval_batches(samples, preprocess=PREPROCESS, batch=8, workers=0)
        for skip in batch.skipped
    ]
    assert sorted(left_out) == sorted(FAULTY)


def _tally(*counts: int) -> Tally:
    """A tally of different samples, each met so many times."""
    tally = Tally()
    for number, count in enumerate(counts):
        tally.add([Skip(f"s{number}", "why", "corrupt")] * count)
    return tally


def test_one_bad_sample_stops_nothing_and_a_bad_source_does() -> None:
    one = _tally(500)  # half of what a long run on two samples sees
    assert not one.exceeds(0.01, seen=1000, size=2)
    assert one.exceeds(0.0, seen=1000, size=2)
    assert not Tally().exceeds(0.0, seen=1000, size=2)
    assert not _tally(1, 1).exceeds(0.01, seen=19, size=20)  # not judged yet
    assert _tally(1, 1).exceeds(0.01, seen=20, size=20)
    assert not _tally(1, 1).exceeds(0.1, seen=20, size=20)
    assert not _tally(*[1] * 12).exceeds(0.01, seen=999, size=10**9)
    assert not _tally(*[2] * 10).exceeds(0.01, seen=1000, size=10**9)  # ten different ones
    assert _tally(*[1] * 11).exceeds(0.01, seen=1000, size=10**9)
    assert not _tally(*[1] * 11).exceeds(0.01, seen=1100, size=10**9)


def test_a_tally_is_kept_merged_and_told() -> None:
    tally = Tally()
    tally.add(
        [Skip("a", "cut", "corrupt"), Skip("b", "blank", "empty"), Skip("a", "cut", "corrupt")]
    )
    kept = Tally.restore(json.loads(json.dumps(tally.state())))
    assert kept == tally and Tally.restore({}) == Tally()
    kept.merge(_tally(*[1] * 1200))
    assert kept.total == 1203 and len(kept.first) == 20
    assert kept.summary(10_000) == "skipped 1,203 of 10,000 samples: 1,202 corrupt, 1 empty"
    with pytest.raises(
        DataError, match=r"of 10,000 .*allowed: 1\.000% .*First: a \(corrupt: cut\); b"
    ):
        kept.check(0.01, seen=10_000, size=10_000)


def test_a_few_labels_that_are_no_class_are_bad_samples_and_many_are_an_error(
    tmp_path: Path,
) -> None:
    def labelled(*labels: int) -> ShardsData:
        files: dict[str, bytes] = {}
        for number, label in enumerate(labels):
            files |= {f"{number}.png": picture(number), f"{number}.cls": str(label).encode()}
        path = write_tar(tmp_path / "t.tar", files)
        return ShardsData(train=str(path), classes=["a", "b"])

    labels = open_split(labelled(0, 1, 9, 1), "train").labels()
    assert labels is not None and labels.tolist() == [0, 1, -1, 1]
    with pytest.raises(DataError, match=r"t\.tar/2: label 9 .*the labels of 2 of 5 samples"):
        open_split(labelled(0, 1, 9, 1, 8), "train")


def _on(section: ShardsData, **changes: Any) -> dict[str, Any]:
    data = section.model_copy(update=changes).model_dump(mode="json")
    return {"data": data, "optim__samples_seen": 128, "run__checkpoint_every": 2}


def test_a_run_tells_what_it_skipped_and_goes_on_counting_after_a_resume(tmp_path: Path) -> None:
    section = write_faulty(tmp_path / "t.tar", fine=40)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole, **_on(section))
    record = read_json(whole / RunFiles.RUN)
    assert record["skipped"] == sum(record["faults"].values()) > 16  # two passes and more
    assert set(record["faults"]) == set(FAULTY.values())
    assert any(note.startswith("skipped ") and " of 128 sam" in note for note in record["notes"])
    lines = [json.loads(line) for line in (whole / RunFiles.SKIPPED).read_text().splitlines()]
    assert len(lines) == record["skipped"]
    assert {line["name"].partition("/")[2]: line["fault"] for line in lines} == FAULTY

    with pytest.raises(
        DataError, match=r"skipped \d+ of \d+ samples: .* corrupt.*max_skipped: 0\.1"
    ):
        run(cut, **_on(section, max_skipped=0.1))
    assert len(checkpoints(cut / RunFiles.CHECKPOINTS)) > 0
    run(cut, resume=True, **_on(section))  # with more patience, the same run goes on
    assert read_json(cut / RunFiles.RUN)["faults"] == record["faults"]
    assert largest_difference(whole, cut) == 0


def _item(data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "retrieval", "data": data}


def test_patience_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    section = write_faulty(tmp_path / "t.tar", fine=1)
    one, other = (recipe(tmp_path, **_on(section, max_skipped=share)) for share in (0.1, 0.2))
    assert recipe_digest(one) == recipe_digest(other)
    parts = [
        {"kind": "mixture", "parts": [{"data": {"kind": "shards", "train": "x", "cache_gb": size}}]}
        for size in (1, 2)
    ]
    mixed = [recipe(tmp_path, data=data, evaluate=[_item(data)]) for data in parts]
    assert recipe_digest(mixed[0]) == recipe_digest(mixed[1])
    larger = recipe(tmp_path, **_on(section, max_pixels=1))
    assert recipe_digest(one) != recipe_digest(larger)


def test_of_many_faults_the_rates_are_said_and_an_example() -> None:
    tally, lines = Tally(), []
    for step in range(1, 5001):
        fault = "empty" if step % 4 == 0 else "corrupt"
        before = tally.total
        tally.add([Skip(f"picture {step}", "cut short", fault)])
        newest = Skip(f"picture {step}", "cut short", fault)
        lines.append(tally.line(newest, before=before, seen=100 * step))
    said = [line for line in lines if line is not None]
    assert said[0] == "skipped picture 1: cut short (1 so far)" and lines[9] is not None
    assert len(said) == 10 + 9, "16, 32, ... 4096: not a line a sample"
    assert said[-1] == (
        "skipped 4,096 of 409,600 samples: 3,072 corrupt, 1,024 empty (1.00%), such as picture "
        "4096: cut short"
    )
