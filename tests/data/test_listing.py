"""What of a folder is a picture, a class, a table; and what is passed over, and said."""

import io
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from ptft.data import open_split
from ptft.data.tar.index import index_tar
from ptft.errors import DataError, PtftError
from ptft.files.picture_names import IMAGE_EXTENSIONS, is_picture
from ptft.preprocess import decode_image
from ptft.preprocess.decoding import FORMATS
from ptft.recipe.data import FolderData, ShardsData
from tests.support.shards import picture, write_tar


def _put(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))


def _notes(root: Path) -> str:
    return "\n".join(open_split(FolderData(train=str(root)), "train").notes(1))


def test_every_ending_of_a_format_that_is_decoded_is_a_picture() -> None:
    Image.init()
    endings = {ending for ending, form in Image.registered_extensions().items() if form in FORMATS}
    assert endings >= {".jpg", ".tif", ".avif", ".jp2", ".gif", ".ppm"}
    assert endings <= {f".{ending}" for ending in IMAGE_EXTENSIONS}
    assert is_picture("a/B.TIF") and not is_picture("a.txt") and not is_picture(".png")


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PPM", "AVIF", "JPEG2000", "ICO", "MPO", "BMP"])
def test_formats_are_read_from_folders_and_tars(tmp_path: Path, form: str) -> None:
    Image.init()
    for ending, name in Image.registered_extensions().items():
        if name != form or ending not in {f".{known}" for known in IMAGE_EXTENSIONS}:
            continue
        Image.new("RGB", (32, 32), (90, 20, 200)).save(stream := io.BytesIO(), form)
        root = tmp_path / ending
        (root / "x").mkdir(parents=True)
        (root / f"x/a{ending.upper()}").write_bytes(stream.getvalue())
        files = {f"a{ending}": stream.getvalue(), "a.txt": b"t"}
        shards = ShardsData(train=str(write_tar(root / "t.tar", files)))
        right = decode_image(stream.getvalue(), name="a")
        for section in (FolderData(train=str(root / "")), shards):
            if isinstance(section, FolderData):
                (root / "t.tar").rename(tmp_path / "t.tar")
                section = FolderData(train=str(root))
            samples = open_split(section, "train")
            assert len(samples) == 1 and samples[0].image.tobytes() == right.tobytes()
            if isinstance(section, FolderData):
                (tmp_path / "t.tar").rename(root / "t.tar")


def test_what_is_passed_over_is_counted_by_kind_and_named_once(tmp_path: Path) -> None:
    _put(tmp_path, "cat/a.png", "dog/b.png", "cat/.c.png", "dog/@eaDir/d.png", "e.png")
    (tmp_path / "cat/a.heic").write_bytes(b"x")
    (tmp_path / "cat/b.heic").write_bytes(b"x")
    (tmp_path / "cat/README").write_text("x")
    (tmp_path / "dog/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "dog/again").symlink_to(tmp_path / "dog")
    (tmp_path / "dog/metadata.csv").write_text("file_name,text\nb.png,a dog\n")
    (tmp_path / "metadata.json").write_text("[]")
    said = _notes(tmp_path)
    for line in (
        "passed over: 2 hidden or of the system (first: cat/.c.png)",
        "passed over: 2 files that are no pictures (.heic) (first: cat/a.heic)",
        "passed over: 1 files that are no pictures (no ending) (first: cat/README)",
        "passed over: 1 broken links (first: dog/gone.png)",
        "passed over: 1 links that lead back into a folder above (first: dog/again)",
        "passed over: 1 pictures beside the class folders, in no class (first: e.png)",
        "passed over: 1 metadata tables inside class folders (first: dog/metadata.csv); a table is",
        "passed over: metadata.json: a table in a form that is not read; allowed: metadata.csv",
    ):
        assert line in said, line
    assert len(open_split(FolderData(train=str(tmp_path)), "train")) == 2


def test_the_system_s_folders_are_no_classes(tmp_path: Path) -> None:
    _put(tmp_path, "cat/a.png", "dog/b.png", "$RECYCLE.BIN/c.png", "#recycle/d.png")
    _put(tmp_path, "System Volume Information/e.png", "lost+found/f.png", ".git/g.png")
    _put(tmp_path, "__pycache__/h.png", "@eaDir/i.png", "dog/__MACOSX/dog/j.png")
    samples = open_split(FolderData(train=str(tmp_path)), "train")
    assert samples.classes == ["cat", "dog"] and len(samples) == 2
    files = {"__MACOSX/0.png": picture(0), "0.png": picture(1), "0.txt": b"t", "._0.png": b"x"}
    index = index_tar(write_tar(tmp_path / "t.tar", files))
    assert index.keys == ["0"]
    assert index.passed_over.counts == {"hidden or of the system": 2}
    shards = open_split(ShardsData(train=str(tmp_path / "t.tar")), "train")
    assert "passed over: 2 hidden or of the system" in "\n".join(shards.notes(1))


def test_splits_one_level_too_high_are_told_with_the_key(tmp_path: Path) -> None:
    _put(tmp_path, "train/cat/a.png", "train/dog/b.png", "Val/cat/c.png")
    with pytest.raises(DataError, match=r"are splits, not classes: Val, train; .*data\.train: /"):
        open_split(FolderData(train=str(tmp_path)), "train")
    named = FolderData(train=str(tmp_path), classes=["train", "Val"])
    assert len(open_split(named, "train")) == 3
    _put(tmp_path / "vehicles", "train/a.png", "bus/b.png")  # one is a word like others
    vehicles = open_split(FolderData(train=str(tmp_path / "vehicles")), "train")
    assert vehicles.classes == ["bus", "train"]


def test_a_class_without_pictures_is_refused_by_name_or_said(tmp_path: Path) -> None:
    _put(tmp_path, "cat/a.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no picture in 'dog'; .*\(\.heic\) \(first: dog/a\.heic"):
        open_split(FolderData(train=str(tmp_path)), "train")
    named = open_split(FolderData(train=str(tmp_path), classes=["cat", "dog"]), "train")
    assert named.classes == ["cat", "dog"]
    assert any("1 class folders without a picture (first: dog)" in s for s in named.notes(1))


def test_nothing_but_flat_pictures_or_tables_is_told_what_is_read(tmp_path: Path) -> None:
    _put(tmp_path, "a.png", "b.png")
    with pytest.raises(DataError, match=r"2 pictures lie beside no table \(a\.png\)"):
        open_split(FolderData(train=str(tmp_path)), "train")
    (tmp_path / "metadata.json").write_text("[]")
    with pytest.raises(DataError, match=r"metadata\.json: a table in a form that is not read"):
        open_split(FolderData(train=str(tmp_path)), "train")


def test_a_table_is_found_in_any_case_and_spelling(tmp_path: Path) -> None:
    name = "caf\u00e9.png"
    _put(tmp_path, unicodedata.normalize("NFD", name), "more/x.png", ".hidden.png")
    (tmp_path / "Metadata.CSV").write_bytes(f"\ufefffile_name, text\n{name},a cup\n".encode())
    samples = open_split(FolderData(train=str(tmp_path)), "train")
    assert len(samples) == 1 and samples.captions(0) == ("a cup",)
    assert samples[0].image.size == (8, 6)
    said = "\n".join(samples.notes(1))
    assert "1 pictures that the table does not name (first: more/x.png)" in said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "file_name,text\na.png,ok\nb.png,caf\xe9\n".encode("latin-1"),
            r"line 3: not UTF-8 \(byte 0xe9\); .*iconv -f cp1252 -t utf-8",
        ),
        ("file_name,text\na.png,x\n".encode("utf-16"), r"line 1: not UTF-8 .*iconv -f utf-16"),
        (b"file_name;text\na.png;x\n", "parted by semicolons; allowed: commas"),
        (b"file_name\ttext\na.png\tx\n", "parted by tabs; allowed: commas"),
        (b"file_name,text,text\na.png,x,y\n", "two columns are named 'text'"),
    ],
)
def test_a_table_that_cannot_be_read_says_the_remedy(
    tmp_path: Path, data: bytes, message: str
) -> None:
    _put(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        open_split(FolderData(train=str(tmp_path)), "train")


def test_lines_of_json_in_another_encoding_say_the_remedy(tmp_path: Path) -> None:
    _put(tmp_path, "a.png")
    row = '{"file_name": "a.png", "text": "caf\u00e9"}\n'
    (tmp_path / "metadata.jsonl").write_bytes(row.encode() + row.encode("latin-1"))
    with pytest.raises(DataError, match=r"line 2: not UTF-8 .*iconv -f cp1252"):
        open_split(FolderData(train=str(tmp_path)), "train")


def test_lists_in_cells_and_names_with_dashes_and_dots_are_fields(tmp_path: Path) -> None:
    _put(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text(
        'file_name,alt-text,meta.name\na.png,"[""a cat"", ""caf\u00e9""]",x\nb.png,[sic] one,y\n'
    )
    section = FolderData(train=str(tmp_path), captions=["{alt-text}", "{meta.name}"])
    samples = open_split(section, "train")
    assert samples.captions(0) == ("a cat", "café", "x")
    assert samples.captions(1) == ("[sic] one", "y")


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path: Path) -> None:
    root = tmp_path / "data [v2] {x}"
    _put(root, "cat/a.png", "dog/b.png")
    assert len(open_split(FolderData(train=str(root)), "train")) == 2
    write_tar(root / "s-0.tar", {"a.png": picture(0), "a.txt": b"a"})
    write_tar(root / "s-1.tar", {"a.png": picture(1), "a.txt": b"b"})
    for pattern in ("s-*.tar", "s-[01].tar"):
        assert len(open_split(ShardsData(train=f"{root}/{pattern}"), "train")) == 2
    with pytest.raises(PtftError, match=r"no such file or folder; did you mean '.*s-0\.tar'"):
        open_split(ShardsData(train=f"{tmp_path}/data [v2] {{x}}/s0.tar"), "train")
