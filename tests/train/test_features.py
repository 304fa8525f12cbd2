"""Features of locked towers: kept where that is exact, and then the same run as without."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from ptft.artifact import RunFiles
from ptft.data import KeptFeatures, open_split
from ptft.data.reading.features import FeatureFile
from ptft.data.sources.scenes import Scenes
from ptft.distributed import ALONE
from ptft.errors import DataError, RecipeError, SampleError
from ptft.recipe import FolderData, ScenesData, ShardsData, TableData
from ptft.speech import SILENT
from ptft.train import train
from ptft.train.batches import batches
from ptft.train.kept_features import keep_features
from ptft.train.setup import set_up
from tests.support.runs import interrupt, largest_difference, recipe, run

LOCKED: dict[str, Any] = {
    "adapt": {"kind": "full", "lock": ["image"]},
    "augment": {"crop_scale": [1.0, 1.0]},
}
BOTH: dict[str, Any] = {**LOCKED, "adapt": {"kind": "probe"}}


def locked(folder: Path, **changes: Any) -> Any:
    return recipe(folder / "run", **{**LOCKED, "run__cache": str(folder / "kept"), **changes})


def decide(folder: Path, **changes: Any) -> tuple[list[str], list[str]]:
    """The towers whose features are kept for a recipe, and what is said of it."""
    given = locked(folder, **changes)
    setup = set_up(given, torch.device("cpu"))
    total = given.optim.samples_seen
    kept = keep_features(given, setup, total=total, world=ALONE, say=lambda _: None)
    return list(kept.kept), list(kept.notes)


@pytest.mark.parametrize("changes", [LOCKED, BOTH], ids=["image", "both"])
def test_a_run_learns_the_same_from_kept_features(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "plain"
    assert run(plain, **changes, run__features="off").finished
    cached = {**changes, "run__cache": str(tmp_path / "kept")}
    first = tmp_path / "first"
    assert run(first, **cached).finished
    record = json.loads((first / RunFiles.RUN).read_text())
    assert record["features"] == (["image"] if changes is LOCKED else ["image", "text"])
    assert largest_difference(plain, first) < 1e-5

    def refuse(*_: object) -> None:
        raise AssertionError("a picture was read")

    monkeypatch.setattr(Scenes, "__getitem__", refuse)
    again = tmp_path / "again"
    assert run(again, **cached).finished
    assert largest_difference(first, again) == 0.0


def test_a_resumed_run_reads_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = {**LOCKED, "run__cache": str(tmp_path / "kept")}
    assert run(tmp_path / "whole", **cached).finished
    interrupt(monkeypatch, tmp_path / "parts", 4, **cached)
    assert run(tmp_path / "parts", resume=True, **cached).finished
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") == 0.0


def test_a_resumed_run_keeps_to_what_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that another run has kept since would change the last bits."""
    once: dict[str, Any] = {**LOCKED, "run__cache": str(tmp_path / "kept"), "data__train": 128}
    interrupt(monkeypatch, tmp_path / "parts", 4, **once)
    assert decide(tmp_path, data__train=128, run__features="on")[0] == ["image"]
    assert decide(tmp_path, data__train=128)[0] == ["image"], "they are there already"
    assert run(tmp_path / "parts", resume=True, **once).finished
    assert json.loads((tmp_path / "parts" / RunFiles.RUN).read_text())["features"] == []


def test_where_it_is_not_exact_or_of_no_use_it_is_off_and_says_why(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"augment": {"crop_scale": [0.9, 1.0]}}, "augment.crop_scale is [0.9, 1.0]"),
        ({"augment": {"crop_scale": [1, 1], "flip": True}}, "augment.flip is on"),
        ({"augment": {"crop_scale": [1, 1], "colour_jitter": 0.1}}, "augment.colour_jitter is 0.1"),
        ({"data__train": 128}, "sees each sample once"),
    ]
    for changes, reason in cases:
        kept, lines = decide(tmp_path, **changes)
        assert kept == []
        assert len(lines) == 1
        assert "features of the locked image tower are not kept" in lines[0]
        assert reason in lines[0]
    assert decide(tmp_path, run__features="off") == ([], [])
    assert decide(tmp_path, adapt={"kind": "full"}) == ([], [])
    assert not (tmp_path / "kept").exists()


def test_on_is_refused_where_it_is_not_exact(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"run.features: 'on': .*augment.flip is on.*auto, off"):
        decide(tmp_path, run__features="on", augment={"crop_scale": [1, 1], "flip": True})
    with pytest.raises(RecipeError, match="no tower that the objective reads is locked"):
        decide(tmp_path, run__features="on", adapt={"kind": "full"})


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureFile, "free", staticmethod(lambda folder: 1000))
    kept, lines = decide(tmp_path)
    assert kept == [] and "GB are free" in lines[0]
    with pytest.raises(DataError, match=r"run\.cache names another folder"):
        decide(tmp_path, run__features="on")


def test_other_weights_or_pixels_are_other_features(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert decide(tmp_path)[0] == decide(tmp_path)[0] == ["image"]
    assert len(list(kept.glob("image-*"))) == 1
    decide(tmp_path, seed=1)  # of the weights
    assert len(list(kept.glob("image-*"))) == 2
    decide(tmp_path, model__mean=[0.5, 0.5, 0.5])
    assert len(list(kept.glob("image-*"))) == 3
    decide(tmp_path, data__style="line")
    assert len(list(kept.glob("image-*"))) == 4


def test_a_killed_computation_goes_on_and_several_share_it(tmp_path: Path) -> None:
    decide(tmp_path, data__train=200, optim__samples_seen=400)
    (folder,) = (tmp_path / "kept").glob("image-*")
    whole = FeatureFile(folder)
    rows = np.array(whole.rows)
    assert whole.missing() == [] and rows.any(axis=1).all()

    states = np.load(folder / "states.npy")
    states[70:] = 0
    np.save(folder / "states.npy", states)
    damaged = np.load(folder / "rows.npy")
    damaged[64:] = -1.0
    np.save(folder / "rows.npy", damaged)
    assert [len(block) for block in FeatureFile(folder).missing()] == [64, 64, 8]
    given = locked(tmp_path, data__train=200)
    setup = set_up(given, torch.device("cpu"))
    lines: list[str] = []

    def keep() -> None:
        keep_features(given, setup, total=400, world=ALONE, say=lines.append)

    again = [threading.Thread(target=keep) for _ in range(2)]
    for thread in again:
        thread.start()
    for thread in again:
        thread.join()
    assert np.array_equal(FeatureFile(folder).rows, rows)
    assert len(lines) == 1 and "computing 136 of 200" in lines[0], "one computes, the other waits"


def test_an_unreadable_sample_is_replaced_by_the_same_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for index in range(12):
        name = f"{index}.png"
        (tmp_path / "set").mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / name)
        rows.append({"file_name": name, "text": f"picture {index}"})
    for bad in (3, 7):
        (tmp_path / "set" / f"{bad}.png").write_bytes(b"no picture")
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    given = locked(tmp_path, data={"kind": "folder", "train": str(tmp_path / "set")})
    setup = set_up(given, torch.device("cpu"))
    kept = keep_features(given, setup, total=48, world=ALONE, say=lambda _: None)
    assert list(kept.kept) == ["image"]
    arguments: dict[str, Any] = {"start": 0, "end": 48, "size": 12, "workers": 0}
    for plain, cached in zip(
        batches(given, setup, **arguments), batches(given, kept, **arguments), strict=True
    ):
        assert isinstance(cached.images, KeptFeatures)
        kept_rows = cached.images.rows
        assert kept_rows.shape == (12, 64) and kept_rows.dtype == torch.float32
        assert cached.names == plain.names
        assert cached.skipped == plain.skipped
        assert len(plain.skipped) >= 2
        assert torch.equal(cached.tokens, plain.tokens)  # type: ignore[arg-type]
        assert torch.equal(cached.caption_ids, plain.caption_ids)  # type: ignore[arg-type]
        with torch.no_grad():
            images = setup.model.normalise(plain.images)
            expected = setup.model.image_trunk(images)
        torch.testing.assert_close(kept_rows, expected, atol=1e-5, rtol=1e-5)


def test_workers_read_features_too(tmp_path: Path) -> None:
    given = locked(tmp_path)
    setup = set_up(given, torch.device("cpu"))
    kept = keep_features(given, setup, total=128, world=ALONE, say=lambda _: None)
    arguments: dict[str, Any] = {"start": 16, "end": 48, "size": 16}
    for here, there in zip(
        batches(given, kept, workers=0, **arguments),
        batches(given, kept, workers=1, **arguments),
        strict=True,
    ):
        assert here.names == there.names
        assert torch.equal(here.images.rows, there.images.rows)


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    file = FeatureFile.create(tmp_path / "f", count=2, width=3, block=2, about={})
    (tmp_path / "f" / "rows.npy").unlink()
    with pytest.raises(DataError, match="No such file"):
        file.write(range(2), np.ones((2, 3), np.float32), {})


def test_an_unreadable_row_says_why_in_any_process(tmp_path: Path) -> None:
    file = FeatureFile.create(tmp_path / "f", count=3, width=2, block=2, about={})
    file.write(range(2), np.ones((1, 2), np.float32), {1: SampleError("not a picture", "empty")})
    for one in (file, FeatureFile(tmp_path / "f")):
        assert one.row(0).tolist() == [1.0, 1.0]
        with pytest.raises(SampleError, match="not a picture") as caught:
            one.row(1)
        assert caught.value.fault == "empty"
        assert one.missing() == [range(2, 3)]


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    FeatureFile.create(tmp_path / "f", count=3, width=2, block=2, about={})
    (tmp_path / "f" / "rows.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"damaged features.*delete the folder"):
        FeatureFile(tmp_path / "f")


def _scenes(folder: Path, state: int) -> Any:
    return ScenesData(train=8, val=2, test=2, seed=state)


def _folder(folder: Path, state: int) -> Any:
    (folder / "a").mkdir(exist_ok=True)
    Image.new("RGB", (8 + state, 8)).save(folder / "a" / "0.png")
    return FolderData(train=str(folder), captions=["x"])


def _table(folder: Path, state: int) -> Any:
    rows = [{"image": b"1", "text": "a"}] * (1 + state)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")
    return TableData(train=str(folder / "t.parquet"))


def _shards(folder: Path, state: int) -> Any:
    import tarfile

    with tarfile.open(folder / "s.tar", "w") as tar:
        (folder / "0.txt").write_text("words")
        Image.new("RGB", (8, 8)).save(folder / "0.png")
        tar.add(folder / "0.txt", "0.txt")
        tar.add(folder / "0.png", "0.png")
    os.utime(folder / "s.tar", ns=(state, state))
    return ShardsData(train=str(folder / "s.tar"))


@pytest.mark.parametrize("make", [_scenes, _folder, _table, _shards])
def test_a_set_that_changed_has_another_fingerprint(
    make: Callable[[Path, int], Any], tmp_path: Path
) -> None:
    first = open_split(make(tmp_path, 0), "train").fingerprint()
    assert first is not None
    assert open_split(make(tmp_path, 0), "train").fingerprint() is not None
    assert open_split(make(tmp_path, 1), "train").fingerprint() != first


def test_a_part_of_a_set_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / f"{index}.png")
    section = FolderData(train=str(tmp_path), captions=["x"])
    prints = {
        open_split(section.model_copy(update={"limit": limit}), "train", seed=seed).fingerprint()
        for limit, seed in ((None, 0), (2, 0), (2, 1), (3, 0))
    }
    assert len(prints) == 4


def test_a_probe_of_classes_reads_kept_features(tmp_path: Path) -> None:
    changes = {
        **BOTH,
        "objective": {"kind": "classify", "head": "random"},
        "run__cache": str(tmp_path / "kept"),
    }
    plain = train(recipe(tmp_path / "a", **changes, run__features="off"), log=SILENT)
    cached = train(recipe(tmp_path / "b", **changes), log=SILENT)
    assert json.loads((cached.folder / RunFiles.RUN).read_text())["features"] == ["image"]
    assert largest_difference(plain.folder, cached.folder) < 1e-5
