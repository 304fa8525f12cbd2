"""``ptft data look``: what its page says of a set, what it guesses of a path, what it refuses."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ptft.data.checks.check import check_splits, inspect_splits
from ptft.errors import DataError
from ptft.look import data_page
from ptft.look.charts import histogram, scatter
from ptft.look.model_view import view_of
from ptft.model import save_model
from ptft.preprocess import ImagePreprocess
from ptft.recipe import Recipe, load_recipe
from ptft.recipe.check import splits_of
from ptft.recipe.load import parse_recipe
from tests.support.looking import noise, put, read, rows
from tests.support.pages import Read, drawn
from tests.support.picture_files import encode, exif_of, png, upright
from tests.support.tiny import build, towers_section

EVIL = "<script>alert(1)<∕script>"  # a folder's name holds no slash
RED, GREEN, BLUE, BLACK = (220, 30, 30), (30, 200, 40), (40, 60, 220), (9, 9, 9)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Two classes, three splits, and in them most of what goes wrong in pictures."""
    root = tmp_path / "set"
    for number, split in enumerate(("train", "valid", "test")):
        for place, name in enumerate(("cat", EVIL)):
            for index in range(4 - number):
                put(root / split / name / f"{index}.png", noise(100 * number + 10 * place + index))
    cats = root / "train" / "cat"
    put(cats / "turned.jpg", encode(upright(), "JPEG", exif=exif_of(6), quality=95))
    put(cats / "deep.png", png(np.linspace(0, 65535, 900).reshape(30, 30).astype(np.uint16), 16))
    put(cats / "broken.jpg", b"\xff\xd8\xffnothing more")
    put(cats / "empty.png", b"")
    put(cats / "wide.png", noise(7, (300, 10)))
    put(root / "train" / EVIL / "again.png", (cats / "0.png").read_bytes())
    put(root / "test" / "cat" / "leak.png", (cats / "1.png").read_bytes())
    put(cats / ".hidden.png", b"x")
    put(cats / "notes.txt", b"x")
    return root


def pixels(image: dict[str, str | None]) -> np.ndarray:
    head, _, data = (image["src"] or "").partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 24)


def facts(page: str, anchor: str) -> dict[str, str]:
    section = page[page.index(f'id="{anchor}"') :]
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section[: section.index("</dl>")])
    return dict(pairs)


def test_a_page_says_what_a_folder_of_splits_holds(odd: Path) -> None:
    looked = data_page(str(odd), every=True)
    assert looked.said[0] == "its folders are splits: test, train, valid"
    assert yaml.safe_load(looked.section) == {
        "data": {
            "kind": "folder",
            "train": str(odd / "train"),
            "val": str(odd / "valid"),
            "test": str(odd / "test"),
        }
    }
    page = read(looked)
    table = rows(page)
    assert "cat 9 3 3" in table
    assert f"{EVIL} 5 3 2" in table
    assert "data.train 14 2 – 10 PNG RGB, 1 PNG I;16, 1 JPEG RGB to learn from" in table
    assert "widest 300 x 10 cat/wide.png" in table
    assert "tallest 32 x 48 cat/turned.jpg" in table  # as it stands upright
    assert "JPEG RGB 1" in table
    assert "upright 11" in table
    assert "on its left side 1" in table
    assert [row for row in table if row.startswith("corrupt 1 cat/broken.jpg: ")]
    train = facts(looked.page, "split-0")
    assert train["samples"] == train["pictures looked at"] == "14"
    assert train["of them turned by EXIF"] == "1"
    assert train["pictures compared"] == "12"  # what is too short to be a picture is nobody's twin
    assert (train["there twice"], train["of them in two classes"]) == ("1", "1")
    assert facts(looked.page, "split-2")["learned from, too"] == "1"
    assert "passed over: 1 hidden or of the system (first: cat/.hidden.png)" in page.words
    assert "In data.train too, for example: cat/leak.png is cat/1.png" in page.words


def test_problems_stand_in_red_on_the_page_and_end_nothing(odd: Path) -> None:
    looked = data_page(str(odd))
    (problem,) = looked.problems
    assert problem.startswith("data.train: 2 of 14 samples looked at cannot be read: 1 corrupt")
    page = read(looked)
    lists = re.search(r'<ul class="problems">(.*?)</ul>', looked.page)
    assert lists is not None
    assert "broken.jpg" in lists[1]
    assert {"class": "state wrong"} in page.all("span")
    assert "1 problem" in page.words
    allowed = data_page(str(odd), ["data.max_skipped=0.5"])
    assert not allowed.problems
    assert 'class="problems"' not in allowed.page
    assert "no problem found" in read(allowed).words


def test_a_class_or_a_caption_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    name, text = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
    lines = []
    for index in range(4):
        put(tmp_path / f"<b>{index}.png", noise(index))
        kind = (name, "cat")[index % 2]
        lines.append({"file_name": f"<b>{index}.png", "text": f"{text}{index}", "label": kind})
    put(tmp_path / "<b>3.png", b"<script>no picture</script>")
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = read(data_page(str(tmp_path), ["data.max_skipped=0"]))
    assert not page.all("script")
    assert not [one for _, one in page.found if "onerror" in one or one.get("src") == "x"]
    assert name in page.words
    assert f"{text}2" in page.words
    assert "<b>3.png: not a picture (27 bytes)" in page.words
    assert any(image["alt"] == name for image in page.all("img"))
    assert f"{name} 2" in rows(page)


def test_a_page_asks_no_address(odd: Path) -> None:
    looked = data_page(str(odd))
    page = read(looked)
    (policy,) = [one for one in page.all("meta") if "http-equiv" in one]
    content = policy["content"] or ""
    assert content.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script-src" not in content
    for tag, attributes in page.found:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert "style" not in attributes
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href"):
                assert (value or "").startswith(("data:image/jpeg;base64,", "#split-"))
    assert "url(" not in looked.page
    assert "@import" not in looked.page
    assert len(page.all("style")) == 1


def test_pictures_are_shown_as_the_model_will_see_them(tmp_path: Path) -> None:
    """Upright, scaled, on white, cropped to the model's own size."""
    folder = tmp_path / "train"
    put(folder / "a" / "1.jpg", encode(upright().resize((96, 64)), "JPEG", exif=exif_of(1)))
    lying = upright().resize((96, 64)).transpose(Image.Transpose.ROTATE_90)
    put(folder / "a" / "2.jpg", encode(lying, "JPEG", exif=exif_of(6)))
    put(folder / "b" / "3.png", png(np.full((50, 50), 32768, np.uint16), 16))
    put(folder / "b" / "4.png", encode(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG"))
    looked = data_page(str(save(recipe(train=folder, val=folder), tmp_path)))
    images = [pixels(one) for one in read(looked).all("img")]
    assert {image.shape for image in images} == {(32, 32, 3)}
    corners = ((2, 2, RED), (2, -3, GREEN), (-3, 2, BLUE), (-3, -3, BLACK))
    for image in images[:2]:
        assert all(near(image[y, x], colour) for y, x, colour in corners)
    assert near(images[2][16, 16], (128, 128, 128))
    assert near(images[3][16, 16], (255, 255, 255))
    assert "Pictures at 32 x 32, shortest, bicubic" in read(looked).words
    assert "the recipe's own preprocessing" in read(looked).words


def recipe(train: Path, val: Path, **keys: object) -> Recipe:
    values = {
        "name": "small",
        "model": towers_section(),
        "data": {"kind": "folder", "train": str(train), "val": str(val)},
        "objective": {"kind": "clip", "templates": ["a Photo of {}"]},
        "optim": {"samples_seen": 4, "global_batch": 2},
        "evaluate": [{"kind": "zero_shot", "name": "held"}],
        **keys,
    }
    return parse_recipe(values, "test")


def save(made: Recipe, folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", by_alias=True)))
    return path


def test_captions_are_shown_as_the_tokenizer_reads_them(tmp_path: Path) -> None:
    for name in ("cat", "DOG  big"):
        put(tmp_path / "train" / name / "1.png", noise(len(name)))
        put(tmp_path / "val" / name / "1.png", noise(9 + len(name)))
    path = save(recipe(tmp_path / "train", tmp_path / "val"), tmp_path)
    page = read(data_page(str(path)))
    shown = [text for tag, text in page.texts if tag == "span"]
    assert "a photo of cat" in shown  # made by the recipe's template, in lower case
    assert "a photo of dog big" in shown
    assert "learned from" in shown
    assert "zero_shot held" in page.words


def test_a_split_that_the_recipe_does_not_read_is_looked_at_too(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for place, name in enumerate(("a", "b")):
            put(tmp_path / split / name / "1.png", noise(place))
    made = recipe(tmp_path / "train", tmp_path / "val")
    path = save(made, tmp_path)
    looked = data_page(str(path), [f"data.test={tmp_path / 'test'}"])
    assert "data.test 2 2 – 2 PNG RGB not read by this recipe" in rows(read(looked))
    assert "data.val 2 2 – 2 PNG RGB zero_shot held" in rows(read(looked))


def test_what_check_refuses_look_shows(tmp_path: Path) -> None:
    """One inspection behind both."""
    for split in ("train", "val"):
        put(tmp_path / split / "only" / "1.png", noise(1))
        put(tmp_path / split / "only" / "2.png", noise(2))
    made = recipe(tmp_path / "train", tmp_path / "val")
    with pytest.raises(DataError, match="all samples are of the class 'only'") as refused:
        check_splits(made)
    found = inspect_splits(splits_of(made), made.objective, seed=made.seed)
    assert "\n".join(found.problems) == str(refused.value)
    looked = data_page(str(save(made, tmp_path)))
    assert looked.problems == found.problems
    assert "2 of 2 pictures are in data.train too" in " ".join(looked.warnings)


def test_one_class_in_a_folder_is_a_problem_without_a_recipe(tmp_path: Path) -> None:
    put(tmp_path / "set" / "only" / "1.png", noise(1))
    looked = data_page(str(tmp_path / "set"))
    (problem,) = looked.problems
    assert problem.startswith("data.train: all samples are of the class 'only'")


def test_where_no_split_opens_there_is_an_error_and_no_page(tmp_path: Path) -> None:
    made = recipe(tmp_path / "no", tmp_path / "where")
    with pytest.raises(DataError) as refused:
        data_page(str(save(made, tmp_path)))
    assert len(str(refused.value).splitlines()) == 2


def test_the_models_own_preprocessing_is_found_without_weights(tmp_path: Path) -> None:
    clip = view_of(load_recipe("finetune/retrieval-clip-vit-b32"))
    assert (clip.preprocess, clip.clean) == (ImagePreprocess(), "clip")
    siglip = view_of(load_recipe("pretrain/siglip-vit-b16"))
    assert siglip.clean is None  # its tokenizer would be fetched
    model = build(towers_section(image_size=48))
    save_model(model, tmp_path / "start")
    begun = recipe(tmp_path, tmp_path, model=None, init={"from": str(tmp_path / "start")})
    assert view_of(begun).preprocess == model.spec.preprocess
    far = recipe(tmp_path, tmp_path, model=None, init={"from": "org/model"})
    assert view_of(far).preprocess == ImagePreprocess()
    assert "the default, since the model's own is not known here: org/model" in view_of(far).said


def test_charts_count_what_they_are_given() -> None:
    spans = Read(drawn(histogram("T", [1, 1, 2, 900], "characters")))
    assert sorted(text for tag, text in spans.texts if tag == "title") == [
        "0 to 49 characters: 3",
        "900 to 949 characters: 1",
    ]
    left, right = (float(bar["x"] or "") for bar in spans.all("rect"))
    heights = [float(bar["height"] or "") for bar in spans.all("rect")]
    # 19 spans over the 302 units from 46 on; 3 of the axis' 3 are the 168 units of its height
    assert left == 46.0 and right == pytest.approx(46 + 18 * 302 / 19, abs=0.1)
    assert heights == [168.0, 56.0]
    one = Read(drawn(histogram("T", [7], "characters")))
    assert [text for tag, text in one.texts if tag == "title"] == ["7 characters: 1"]
    dots = Read(drawn(scatter("S", [(10, 20), (10, 20), (300, 5)], (32, 32))))
    assert [text for tag, text in dots.texts if tag == "title"] == ["10 x 20: 2", "300 x 5: 1"]
    assert len(dots.all("circle")) == 2


def test_many_classes_are_folded_and_some_shown(tmp_path: Path) -> None:
    one = encode(Image.new("RGB", (8, 8)), "PNG")
    for number in range(120):
        put(tmp_path / f"class {number:03}" / "1.png", one + bytes([number]) * 200)
    looked = data_page(str(tmp_path))
    page = read(looked)
    assert "the other 80 classes" in page.words
    assert "One of 24 of the 120 classes" in page.words
    assert len(page.all("img")) == 48
    assert "class 119 1" in rows(page)
    assert {"class 000", "class 119"} <= {image["alt"] for image in page.all("img")}


def test_the_command_prints_the_pages_path_last(odd: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    command = [sys.executable, "-m", "ptft", "data", "look", str(odd), "--all", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(out)]
    assert "guessed: its folders are splits: test, train, valid" in done.stderr
    assert f"  train: {odd / 'train'}\n" in done.stderr
    assert "problem: data.train: 2 of 14 samples" in done.stderr
    assert "Every picture was decoded." in Read(out.read_text(encoding="utf-8")).words


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_takes_the_pages_style_under_its_policy(odd: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "look.html", tmp_path / "look.png"
    page.write_text(data_page(str(odd)).page, encoding="utf-8")
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,900"),
        *(f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", f"file://{page}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    shown = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    red = (shown == (0xB4, 0x23, 0x18)).all(1)  # the edge of the list of problems
    assert red.sum() > 100, done.stderr
