"""WebDataset tars, read back; broken ones named."""

import json
import pickle
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from ptft.data.open import open_split
from ptft.data.tar.index import index_tar
from ptft.errors import DataError, RecipeError, SampleError
from ptft.recipe.data import ShardsData
from tests.support.shards import picture, write_pairs, write_tar


def _open_files(folder: Path) -> int:
    """Files of a folder that this process holds open."""
    links = []
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile by a thread of something else
            links.append(file.readlink())
    return sum(link.is_relative_to(folder) for link in links)


def test_samples_are_read_back_with_all_their_fields(tmp_path: Path) -> None:
    values = {"name": "dove", "tags": ["bird", "peace"], "n": 3}
    write_tar(
        tmp_path / "a.tar",
        {
            "x/0.png": picture(10),
            "x/0.txt": b"a dove\n",
            "x/0.json": json.dumps(values).encode(),
            "x/1.jpg": picture(20, "jpeg"),
            "x/1.txt": b"a rock",
            "x/1.json": json.dumps({**values, "name": "rock"}).encode(),
        },
    )
    section = ShardsData(
        train=str(tmp_path / "a.tar"), captions=["{txt}", "{name}: {tags}", "{tags}"]
    )
    samples = open_split(section, "train")
    assert len(samples) == samples.size == 2
    assert samples[0].captions == ("a dove", "dove: bird, peace", "bird", "peace")
    assert samples.captions(1) == ("a rock", "rock: bird, peace", "bird", "peace")
    assert samples[0].name == "a.tar/x/0"
    assert samples[0].image.size == (8, 6)
    assert abs(int(np.asarray(samples[1].image).mean()) - 20) <= 1
    assert samples.classes is None and samples[0].label is None


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_gives_what_tarfile_gives(tmp_path: Path, form: int) -> None:
    names = ["plain.png", "./dot/name.PNG", "d" * 90 + "/" + "n" * 80 + ".webp", "ünïcode.bmp"]
    if form != tarfile.USTAR_FORMAT:
        names.append("long/" + "e" * 300 + ".jpeg")
    path = write_tar(tmp_path / "t.tar", {name: name.encode() * 9 for name in names}, form)
    with tarfile.open(path, "a", format=form) as tar:  # none of these is a sample
        tar.addfile(tarfile.TarInfo(".hidden"))
        folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link.png")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "plain.png"
        tar.addfile(folder)
        tar.addfile(link)
    index = index_tar(path)
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.isfile() and member.name != ".hidden"]
    assert len(index) == len(members) == len(names)
    for number, member in enumerate(members):
        stem, _, extension = member.name.rpartition(".")
        assert index.keys[number] == stem
        ((found, (offset, size)),) = index.members(number).items()
        assert found == extension.lower()
        assert (offset, size) == (member.offset_data, member.size)
        assert data[offset : offset + size] == member.name.encode() * 9


def test_extensions_begin_at_the_first_dot(tmp_path: Path) -> None:
    files = {"a.png": picture(1), "a.mask.png": picture(2), "a.txt": b"one"}
    samples = open_split(ShardsData(train=str(write_tar(tmp_path / "a.tar", files))), "train")
    assert len(samples) == 1
    assert np.asarray(samples[0].image).max() == 1


def test_brace_patterns_and_globs_keep_their_order(tmp_path: Path) -> None:
    for number in range(4):
        write_pairs(tmp_path / f"s-{number:02d}.tar", 2, first=number * 2)
    section = ShardsData(
        train=str(tmp_path / "s-{02..03}.tar"), val=[str(tmp_path / "s-0[01].tar")]
    )
    train, val = open_split(section, "train"), open_split(section, "val")
    assert [train.captions(i)[0] for i in range(4)] == [f"grey {i}" for i in (4, 5, 6, 7)]
    assert [val.name(i) for i in (0, 3)] == ["s-00.tar/0000", "s-01.tar/0003"]
    with pytest.raises(RecipeError, match=r"data\.train: .*s-04\.tar': no such file"):
        open_split(ShardsData(train=str(tmp_path / "s-{03..04}.tar")), "train")
    with pytest.raises(RecipeError, match=r"data\.test: missing; given: train, val"):
        open_split(section, "test")


def test_labels_come_from_cls_or_the_field_that_is_named(tmp_path: Path) -> None:
    train, val = {}, {}
    for number, (cls, kind) in enumerate([("2", "b"), ("0", "a"), ("2", "b")]):
        train |= {
            f"{number}.png": picture(number),
            f"{number}.cls": f"{cls}\n".encode(),
            f"{number}.json": json.dumps({"kind": kind}).encode(),
        }
    val = {"0.png": picture(0), "0.cls": b"2", "0.json": b'{"kind": "b"}'}
    paths = {
        "train": str(write_tar(tmp_path / "t.tar", train)),
        "val": str(write_tar(tmp_path / "v.tar", val)),
    }
    named = open_split(ShardsData(**paths, classes=["x", "y", "z"]), "train")
    assert named.classes == ["x", "y", "z"]
    assert [sample.label for sample in (named[0], named[1], named[2])] == [2, 0, 2]
    assert named[0].captions == ()  # no text, but a class
    plain = open_split(ShardsData(**paths), "val")
    assert plain.classes == ["0", "2"]  # the training split's own
    labels = plain.labels()
    assert labels is not None and labels.tolist() == [1] == [plain[0].label]
    kinds = open_split(ShardsData(**paths, label="kind", captions=["a photo of a {class}"]), "val")
    assert kinds.classes == ["a", "b"]
    assert kinds[0].label == 1
    assert kinds[0].captions == ("a photo of a b",)
    own = open_split(ShardsData(**paths), "val", classes=["0", "1", "2"])
    assert own.classes == ["0", "1", "2"] and own[0].label == 2
    with pytest.raises(DataError, match=r"data\.train: t.tar/0: label 2 is not among the classes"):
        open_split(ShardsData(**paths, classes=["x", "y"]), "train")
    with pytest.raises(DataError, match=r"data\.label: 'sort': no sample has that field; .*kind"):
        open_split(ShardsData(**paths, label="sort"), "train")


def test_an_explicit_template_that_cannot_be_filled_is_an_error(tmp_path: Path) -> None:
    files = {"0.png": picture(0), "0.cls": b"0"}
    path = str(write_tar(tmp_path / "t.tar", files))
    assert open_split(ShardsData(train=path), "train")[0].captions == ()
    samples = open_split(ShardsData(train=path, captions=["{name}"]), "train")
    with pytest.raises(SampleError, match=r"t\.tar/0: no field 'name'.*fields: cls"):
        samples[0]


def test_broken_samples_are_named(tmp_path: Path) -> None:
    files = {
        "0.png": picture(0)[:40],
        "0.txt": b"cut",
        "1.txt": b"no picture",
        "2.png": picture(2),
        "2.txt": b"\xff\xfe",
        "3.png": picture(3),
        "3.txt": b"fine",
        "3.json": b"{",
        "4.png": b"",
        "4.txt": b"empty",
        "5.png": picture(5),
        "5.txt": b"fine",
        "5.json": b"[1]",
        "6.png": picture(6),
        "6.json": b'{"txt": "a", "txt": "b"}',
    }
    samples = open_split(ShardsData(train=str(write_tar(tmp_path / "t.tar", files))), "train")
    reasons = ["t.tar/0: ", "no picture; its files: txt", "txt: not UTF-8", "json: ", "not a pict"]
    reasons += ["json: list; allowed: an object", "json: the key 'txt' comes twice"]
    for index, reason in enumerate(reasons):
        with pytest.raises(SampleError, match=reason):
            samples[index].image.load()
        assert samples.name(index) == f"t.tar/{index}"


def test_broken_tars_are_named_with_their_offset(tmp_path: Path) -> None:
    whole = write_pairs(tmp_path / "whole.tar", 3).read_bytes()
    broken = tmp_path / "broken.tar"

    def message(data: bytes) -> str:
        broken.write_bytes(data)
        with pytest.raises(DataError) as caught:
            open_split(ShardsData(val=str(broken)), "val")
        assert str(caught.value).startswith(f"data.val: {broken}: ")
        return str(caught.value)

    assert "offset 1024: cut short inside a header" in message(whole[: 1024 + 200])
    assert "offset 0: cut short: '0000.png' has" in message(whole[:540])
    scrambled = bytearray(whole)
    scrambled[1024 : 1024 + 512] = b"x" * 512
    assert "offset 1024: not a tar header" in message(bytes(scrambled))
    sized = bytearray(whole)
    sized[1024 + 124 : 1024 + 136] = b"not a size!!"
    assert "offset 1024: b'not a size!!' is not a size" in message(bytes(sized))
    assert "offset 0: not a tar header" in message(b"<html>" * 200)
    assert "compressed (gzip)" in message(b"\x1f\x8b" + bytes(range(256)) * 4)
    assert "no samples" in message(b"\0" * 10240)
    assert "no samples" in message(b"")


def test_a_tar_without_its_end_mark_is_whole(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "t.tar", 3)
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data + b"\0" * (-len(data) % 512))
    assert len(index_tar(path)) == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.txt", "b.json"], "no pictures; extensions: json, txt; of a picture: jpg"),
        (["a.png", "b.png", "a.txt"], "offset 2048: 'a.txt': key 'a' came before"),
        (["a.png", "a.PNG"], "offset 1024: 'a.PNG' comes twice in sample 'a'"),
    ],
)
def test_tars_that_hold_something_else(tmp_path: Path, names: list[str], message: str) -> None:
    path = write_tar(tmp_path / "t.tar", dict.fromkeys(names, b"1"))
    with pytest.raises(DataError, match=message):
        index_tar(path)


def test_files_are_opened_by_each_process_and_closed(tmp_path: Path) -> None:
    for number in range(70):
        write_pairs(tmp_path / f"{number:03d}.tar", 1, first=number)
    samples = open_split(ShardsData(train=str(tmp_path / "*.tar")), "train")
    open_before = _open_files(tmp_path)
    for index in range(70):
        assert samples[index].captions == (f"grey {index}",)
    assert _open_files(tmp_path) == open_before + 64
    copied = pickle.loads(pickle.dumps(samples))
    assert _open_files(tmp_path) == open_before + 64
    assert copied[3].captions == ("grey 3",)
    del samples, copied
    assert _open_files(tmp_path) == open_before


def test_a_tar_that_became_shorter_is_told(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "t.tar", 3)
    samples = open_split(ShardsData(train=str(path)), "train")
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(SampleError, match="it became shorter"):
        samples[2]


def test_real_shards(shared_data: Path) -> None:
    section = ShardsData(
        train=str(shared_data / "emoji" / "{noto,fluent3d}" / "train-*.tar"),
        captions=["{name}, {keywords}", "{txt}"],
        join="none",
    )
    samples = open_split(section, "train")
    assert len(samples) == 1275 + 1215
    assert samples.name(0).startswith("noto/train-000000.tar/")
    for index in range(0, len(samples), 50):
        sample = samples[index]
        assert sample.image.size == (64, 64)
        assert sample.captions[0].startswith(sample.captions[-1])
    grocery = shared_data / "grocery"
    test = open_split(
        ShardsData(test=str(grocery / "test-*.tar"), classes=str(grocery / "classes.json")),
        "test",
    )
    labels = test.labels()
    assert labels is not None and test.classes is not None
    assert len(test) == 2485 and len(test.classes) == 81
    assert set(labels.tolist()) == set(range(81))
    assert all(test.captions(i) == (test.classes[labels[i]],) for i in range(0, 2485, 40))
