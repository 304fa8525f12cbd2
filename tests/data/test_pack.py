"""Packs: smaller pictures, the same captions and labels, the same bytes however they were made."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.data.open import open_split
from ptft.data.packing.pack import Packed, PackSettings, pack
from ptft.data.packing.shard import pack_picture
from ptft.data.reading.decode import Encoded
from ptft.data.sample import SampleSet
from ptft.data.tar.index_file import read_index
from ptft.errors import DataError, RecipeError, SampleError, UsageError
from ptft.recipe.data import DataSection, FolderData, ScenesData, ShardsData, TableData
from tests.support.picture_files import encode, pillow
from tests.support.shards import write_parquet, write_tar

SMALL = PackSettings(short_side=32, samples_per_shard=4)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def shards(tmp_path: Path) -> ShardsData:
    """Ten samples in two tars with the same keys; number 3 is cut short, number 6 has no label."""
    for tar in range(2):
        files: dict[str, bytes] = {}
        for number in range(5):
            index = tar * 5 + number
            picture = encode(noise(40 + 3 * index, 90, index))
            files[f"{number}.jpg"] = picture[:300] if index == 3 else picture
            files[f"{number}.txt"] = f"ünique {index}\n".encode()
            if index != 6:
                files[f"{number}.cls"] = str(index % 3 + 4).encode()
            files[f"{number}.json"] = json.dumps({"tags": ["a", f"b{index}"]}).encode()
            files[f"{number}.mask.npy"] = bytes([index]) * 9
        write_tar(tmp_path / "source" / f"{tar}.tar", files)
    tars = str(tmp_path / "source" / "*.tar")
    return ShardsData(train=tars, val=tars, captions=["{txt}", "{tags}"], limit=6)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def same_but_for_pictures(source: DataSection, packed: Packed, split: str, left_out: int) -> None:
    """Hold every sample of a pack against the one it came from."""
    before = open_split(source.model_copy(update={"limit": None}), split)  # type: ignore[arg-type]
    after = open_split(packed.section.model_copy(update={"limit": None}), split)  # type: ignore[arg-type]
    assert after.classes == before.classes
    assert len(after) == len(before) - left_out
    for number in range(len(after)):
        index = int(after.name(number).rpartition("/")[2])
        assert after.captions(number) == before.captions(index)
        assert after[number].label == before[index].label
        assert after[number].image.size[0] >= 1


def test_shards_keep_everything_but_large_pictures(shards: ShardsData, tmp_path: Path) -> None:
    packed = pack(shards, tmp_path / "out", SMALL, workers=0)
    names = [f"{split}-{number:06d}.tar" for split in ("train", "val") for number in range(3)]
    assert [shard.name for shard in packed.shards] == names
    assert [shard.samples for shard in packed.shards] == [3, 4, 2] * 2
    assert packed.total == 20
    ((first, reason), (second, _)) = packed.skipped
    assert first == second == "0.tar/3" and "0.tar/3" not in reason
    assert packed.section.limit == 6  # of the recipe, not of the pack
    for split in ("train", "val"):
        same_but_for_pictures(shards, packed, split, left_out=1)
    index = read_index(tmp_path / "out" / "train-000001.tar")
    assert index is not None and index.keys == [f"{number:09d}" for number in (4, 5, 6, 7)]
    offset, size = index.members(2)["mask.npy"]
    data = (tmp_path / "out" / "train-000001.tar").read_bytes()
    assert data[offset : offset + size] == bytes([6]) * 9
    samples = open_split(packed.section.model_copy(update={"limit": None}), "train")
    for number in range(len(samples)):
        assert min(samples[number].image.size) == 32


def test_a_folder_keeps_its_captions_and_classes(tmp_path: Path) -> None:
    for number in range(9):
        path = tmp_path / "in" / f"kind {number % 3}" / f"{number}.v2.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(noise(50, 30 + number, number), "PNG") if number != 7 else b"?")
    plain = FolderData(train=str(tmp_path / "in"))
    templates = plain.model_copy(update={"captions": ["a {label}", "the {class}"]})
    for place, section in (("plain", plain), ("templates", templates)):
        packed = pack(section, tmp_path / place, SMALL, workers=0)
        same_but_for_pictures(section, packed, "train", left_out=1)
    assert open_split(packed.section, "train").classes == ["kind 0", "kind 1", "kind 2"]


def test_a_table_keeps_its_captions(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", 11)
    plain = TableData(train=str(tmp_path / "t.parquet"))
    lists = plain.model_copy(update={"captions": ["{text}: {tags}", "{tags}"], "label": "kind"})
    streamed = plain.model_copy(update={"streaming": True, "window": 3})
    for place, section in (("plain", plain), ("lists", lists), ("streamed", streamed)):
        packed = pack(section, tmp_path / place, SMALL, workers=0)
        assert (packed.total, packed.skipped) == (11, [])
        same_but_for_pictures(section, packed, "train", left_out=0)


def test_neither_workers_nor_an_interruption_change_a_byte(
    shards: ShardsData, tmp_path: Path
) -> None:
    pack(shards, tmp_path / "one", SMALL, workers=0)
    expected = contents(tmp_path / "one")
    pack(shards, tmp_path / "two", SMALL, workers=2, splits=["train", "val"])
    two = contents(tmp_path / "two")
    names = [name for name in expected if name.endswith((".tar", ".index", "pack.json"))]
    assert len(names) == 13
    for name in names:
        assert two[name] == expected[name], name

    seen: list[int] = []

    def interrupt(_split: str, done: int, _count: int) -> None:
        seen.append(done)
        if done == 8:
            raise KeyboardInterrupt

    out = tmp_path / "three"
    with pytest.raises(KeyboardInterrupt):
        pack(shards, out, SMALL, workers=0, progress=interrupt)
    assert seen == [0, 4, 8]
    assert not list(out.glob(".*")) and not (out / "train-000002.tar").exists()
    (out / "train-000001.tar").unlink()  # and one is lost
    kept = (out / "train-000000.tar").stat().st_ino
    seen = []
    pack(shards, out, SMALL, workers=0, progress=lambda _s, done, _c: seen.append(done))
    assert seen == [4, 8, 10, 0, 4, 8, 10]
    assert (out / "train-000000.tar").stat().st_ino == kept
    for name in names:
        assert contents(out)[name] == expected[name], name


def test_another_pack_or_another_source_is_refused(shards: ShardsData, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(shards, out, SMALL, workers=0, splits=["train"])
    before = contents(out)
    with pytest.raises(UsageError, match=r"it holds a pack with short_side 32, not 48; allowed"):
        pack(shards, out, PackSettings(48, samples_per_shard=4), workers=0)
    with pytest.raises(UsageError, match=r"it holds a pack with data "):
        pack(shards.model_copy(update={"captions": ["{txt}"]}), out, SMALL, workers=0)
    write_tar(tmp_path / "source" / "2.tar", {"0.jpg": b"?"})
    with pytest.raises(UsageError, match=r"the source's train had 10 samples and has 11"):
        pack(shards, out, SMALL, workers=0, splits=["train"])
    (tmp_path / "source" / "2.tar").unlink()
    write_tar(
        tmp_path / "source" / "1.tar", {f"{i}.jpg": encode(noise(9, 9, seed=i)) for i in range(5)}
    )
    with pytest.raises(UsageError, match=r"had 10 samples and has 10, or its files changed"):
        pack(shards, out, SMALL, workers=0, splits=["train"])
    assert contents(out) == before
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "diary.txt").write_text("x")
    with pytest.raises(UsageError, match=r"taken: it is not empty and holds no pack\.json"):
        pack(shards, tmp_path / "taken", SMALL, workers=0)
    with pytest.raises(UsageError, match=r"data\.kind: 'scenes' has no stored pictures"):
        pack(ScenesData(), tmp_path / "scenes", SMALL)
    with pytest.raises(RecipeError, match=r"data\.test: missing"):
        pack(shards, tmp_path / "test", SMALL, splits=["test"])


def test_a_run_of_broken_samples_leaves_no_shard(tmp_path: Path) -> None:
    files = {f"{i}.png": encode(noise(9, 9), "PNG") if i == 9 else b"?" for i in range(10)}
    files |= {f"{i}.txt": b"x" for i in range(10)}
    section = ShardsData(train=str(write_tar(tmp_path / "s.tar", dict(sorted(files.items())))))
    packed = pack(section, tmp_path / "out", SMALL, workers=0)
    assert [path.name for path in sorted((tmp_path / "out").glob("*.tar"))] == ["train-000002.tar"]
    assert len(packed.skipped) == 9
    assert len(open_split(packed.section, "train")) == 1
    again = pack(section, tmp_path / "out", SMALL, workers=0)
    assert again == packed
    write_tar(tmp_path / "s.tar", {f"{i}.{ext}": b"?" for i in range(3) for ext in ("png", "txt")})
    with pytest.raises(DataError, match=r"none of 3 samples could be read; first: s\.tar/0: not a"):
        pack(section, tmp_path / "none", SMALL, workers=0)


def test_pictures_are_reduced_but_never_enlarged() -> None:
    for form in ("JPEG", "PNG", "WEBP", "BMP"):
        small = encode(noise(32, 50), form)
        extension, data = pack_picture(Encoded(small, "x"), 32, 90)
        assert data == small
        assert extension == {"JPEG": "jpg"}.get(form, form.lower())
    for form, size in (("JPEG", (33, 50)), ("PNG", (100, 34)), ("GIF", (10, 10))):
        large = encode(noise(*size), form)
        extension, data = pack_picture(Encoded(large, "x"), 32, 95)
        assert extension == "jpg"
        scale = min(1.0, 32 / min(size))
        wanted = (round(size[0] * scale), round(size[1] * scale))
        expected = Image.fromarray(pillow(large)).resize(wanted, Image.Resampling.BICUBIC)
        assert data == encode(expected, quality=95)
    with pytest.raises(SampleError, match=r"^x: "):
        pack_picture(Encoded(encode(noise(20, 20))[:-40], "x"), 32, 90)


def test_the_command_prints_the_section_that_reads_the_pack(
    shards: ShardsData, tmp_path: Path
) -> None:
    values = shards.model_dump(mode="json", exclude_defaults=True)
    recipe = {
        "name": "r",
        "model": {"name": "ViT-S-32"},
        "data": {"kind": "shards", **values},
        "optim": {"samples_seen": 1},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    arguments = ["data", "pack", str(tmp_path / "r.yaml"), str(tmp_path / "out"), "data.limit=2"]
    arguments += ["--short-side", "48", "--split", "val", "--workers", "0"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    printed = ShardsData.model_validate(yaml.safe_load(result.stdout)["data"])
    assert printed.train is None and printed.limit == 2
    assert printed.captions == shards.captions
    assert len(open_split(printed, "val")) == 9
    assert "9 samples in 1 shards" in result.stderr
    assert "skipped 1 of 10; first: 0.tar/3: " in result.stderr


def test_a_pack_is_written_through_no_link(shards: ShardsData, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    pack(shards, out, SMALL, workers=0)
    whole = contents(out)
    for path in out.glob("train-*.tar"):  # cut short, and found by somebody else
        path.unlink()
        path.with_name(f".{path.name}.partial").symlink_to(victim)
    pack(shards, out, SMALL, workers=0)
    assert victim.read_text() == "mine" and contents(out) == whole


def test_what_chooses_among_samples_is_left_to_the_pack(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files: dict[str, bytes] = {}
    for number in range(8):
        files[f"{number}.jpg"] = encode(noise(40, 40, number))
        files[f"{number}.cls"] = b"ab"[number % 2 : number % 2 + 1]
    write_tar(tmp_path / "s.tar", files)
    section = ShardsData(train=str(tmp_path / "s.tar"), hold_out=0.25, shots=2, draw_seed=3)
    packed = pack(section, tmp_path / "out", SMALL, workers=0)
    assert (packed.section.hold_out, packed.section.shots) == (0.25, 2)
    for split in ("train", "val"):
        before, after = open_split(section, split), open_split(packed.section, split)  # type: ignore[arg-type]
        numbers = [_numbers(samples) for samples in (before, after)]
        assert numbers[0] == numbers[1] and len(numbers[0]) in (2, 4)
    assert "draws other samples" not in caplog.text
    write_tar(tmp_path / "s.tar", {**files, "5.jpg": files["5.jpg"][:200]})
    pack(section, tmp_path / "again", SMALL, workers=0)
    assert "data.shots, data.draw_seed, data.hold_out: draws other samples than" in caplog.text


def _numbers(samples: SampleSet) -> list[int]:
    return [int(samples.name(n).rpartition("/")[2]) for n in range(len(samples))]
