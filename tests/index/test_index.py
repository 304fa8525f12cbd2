"""The folder of an index: exact search, and what is refused of one that was changed."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ptft.artifact import read_json, write_json
from ptft.errors import ArtifactError, DigestError, PtftError
from ptft.files.digests import file_digests
from ptft.index import IndexInfo, read_picture_index, write_picture_index
from ptft.index.build import pictures_within

DIGEST, OTHER = (f"sha256:{letter * 64}" for letter in "ab")
N, D = 40_000, 8  # some blocks


def rows(count: int = N, seed: int = 0) -> NDArray[np.float32]:
    made = np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def write(folder: Path, embeddings: NDArray[np.float32], **more: object) -> Path:
    info = IndexInfo("birds", DIGEST, "fp32", len(embeddings), D)
    names = [f"{number}.jpg" for number in range(len(embeddings))]
    write_picture_index(folder, info, embeddings, names, **more)  # type: ignore[arg-type]
    return folder


def opened(folder: Path) -> object:
    return read_picture_index(folder, digest=DIGEST, precision="fp32")


def test_the_nearest_are_those_of_a_search_in_float64_and_equal_ones_stay_in_order(
    tmp_path: Path,
) -> None:
    embeddings = rows()
    embeddings[[39_999, 5, 20_000]] = embeddings[100]  # equal rows in several blocks
    index = read_picture_index(
        write(tmp_path / "index", embeddings), digest=DIGEST, precision="fp32"
    )
    for query in (embeddings[100], rows(1, seed=9)[0]):
        exact = embeddings.astype(np.float64) @ query.astype(np.float64)
        found = index.search(query, 25)
        assert [one.name for one in found] == [f"{one.row}.jpg" for one in found]
        np.testing.assert_allclose(
            [one.cosine for one in found], np.sort(exact)[::-1][:25], atol=1e-6
        )
        np.testing.assert_allclose(
            [exact[one.row] for one in found], [one.cosine for one in found], atol=1e-6
        )
    assert [one.row for one in index.search(embeddings[100], 4)] == [5, 100, 20_000, 39_999]
    assert len(index.search(embeddings[0], 10**6)) == N
    assert index.thumbnail(0) is None


def test_thumbnails_are_given_back(tmp_path: Path) -> None:
    pictures = [bytes([number]) * (number + 1) for number in range(6)]
    index = opened(write(tmp_path / "index", rows(6), thumbnails=pictures))
    assert [index.thumbnail(row) for row in range(6)] == pictures  # type: ignore[attr-defined]


def test_others_may_read_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "index", rows(6), thumbnails=[b"one"] * 6)
    like = tmp_path / "like"
    like.mkdir()
    (like / "file").touch()
    assert folder.stat().st_mode == like.stat().st_mode
    assert {one.stat().st_mode for one in folder.iterdir()} == {(like / "file").stat().st_mode}


def test_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "index", rows(6))
    for digest, precision in ((OTHER, "fp32"), (DIGEST, "int8")):
        with pytest.raises(DigestError, match=f"allowed: {digest} in {precision}"):
            read_picture_index(folder, digest=digest, precision=precision)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write(tmp_path / "index", rows(6), thumbnails=[b"one"])
    assert list(tmp_path.iterdir()) == []


def lines(folder: Path, change: Callable[[list[dict]], None]) -> None:
    path = folder / "rows.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    change(found)
    path.write_text("".join(json.dumps(line) + "\n" for line in found))


def longer(folder: Path) -> None:
    embeddings = rows(6)
    embeddings[3] *= 2
    save_file({"embeddings": embeddings}, folder / "embeddings.safetensors")


def not_finite(folder: Path) -> None:
    embeddings = rows(6)
    embeddings[4, 0] = np.nan
    save_file({"embeddings": embeddings}, folder / "embeddings.safetensors")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (longer, "row 3 has length 2; allowed: 1"),
        (not_finite, "row 4 has length nan; allowed: 1"),
        (lambda folder: save_file({"x": rows(6)}, folder / "embeddings.safetensors"), "one tensor"),
        (
            lambda folder: save_file({"embeddings": rows(5)}, folder / "embeddings.safetensors"),
            "6 x 8",
        ),
        (lambda folder: lines(folder, lambda found: found.pop()), "5 lines; allowed: 6"),
        (lambda folder: lines(folder, lambda found: found[2].pop("name")), "line 3: name: missing"),
        (
            lambda folder: lines(folder, lambda found: found[1].update(x=1)),
            "line 2: x: unknown key",
        ),
        (
            lambda folder: lines(folder, lambda found: found[0].update(thumbnail=[0, 10**9])),
            "line 1: thumbnail",
        ),
        (
            lambda folder: lines(folder, lambda found: found[0].update(thumbnail=[-1, 1])),
            "line 1: thumbnail",
        ),
    ],
)
def test_what_is_damaged_is_named_though_the_record_was_made_anew(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    folder = write(tmp_path / "index", rows(6), thumbnails=[b"picture"] * 6)
    damage(folder)
    with pytest.raises(DigestError):
        opened(folder)
    record = read_json(folder / "index.json")
    write_json(folder / "index.json", {**record, "files": file_digests(folder, record["files"])})
    with pytest.raises(ArtifactError, match=says):
        opened(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("count", 0), ("dim", 10**9), ("precision", "fp8"), ("format", 2), ("digest", 4), ("new", 1)],
)
def test_a_record_that_says_what_none_may_is_refused(
    tmp_path: Path, key: str, value: object
) -> None:
    folder = write(tmp_path / "index", rows(6))
    write_json(folder / "index.json", {**read_json(folder / "index.json"), key: value})
    with pytest.raises(PtftError, match=key):
        opened(folder)


def test_hidden_files_and_those_that_are_no_pictures_are_passed_over_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("a.png", "b/c.JFIF", ".Trash/d.png", "@eaDir/e.png", "__MACOSX/._a.png", "f.pdf", "g")
    for name in (*names, "b/.ipynb_checkpoints/c-checkpoint.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    caplog.set_level(logging.INFO, "ptft")
    found = [path.relative_to(tmp_path).as_posix() for path in pictures_within(tmp_path)]
    assert found == ["a.png", "b/c.JFIF"]
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "passed over: 4 hidden or of the system" in said
    assert "passed over: 1 files that are no pictures (.pdf)" in said
