"""The page at ``/``, in a real browser, by the rules of axe-core."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import FolderFiles, ModelInfo, read_model_info
from ptft.model import DualEncoder
from serving.keys import make_key
from tests.serving.conftest import Client, checkpoint_images, checkpoint_texts, make_index
from tests.serving.server import Server, serve_plain
from tests.support.browser import Missing, Tab, axe_script, chromium

TEXTS = ["a cat", "a <b>dog</b>", "nothing at all"]
# everything that axe can tell without a person, best practices included
AXE_RUN = "axe.run().then(found => JSON.stringify(found.violations))"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    try:
        with chromium(tmp_path_factory.mktemp("browser")) as running:
            yield running
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def keyed(sketched: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A service with a key and an index, and the key."""
    home = tmp_path_factory.mktemp("keyed")
    secret, key = make_key("page")
    (home / "keys").write_text(f"page sha256:{key.digest.hex()}\n")
    index = make_index(read_model_info(sketched), home / "index")
    settings = {"PTFT_MODEL": str(sketched), "PTFT_KEYS_FILE": str(home / "keys")}
    settings["PTFT_INDEX"] = str(index)
    with serve_plain(home, settings | {"PTFT_THREADS": "1"}) as server:
        yield server, secret


def test_the_page_lets_a_browser_reach_nothing_else(plain_client: TestClient) -> None:
    answer = plain_client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["style-src"])
    assert "//" not in re.sub(r"^\s*//.*| //.*", "", answer.text, flags=re.MULTILINE)  # an address
    again = plain_client.get("/", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert plain_client.head("/").status_code == 200


def test_about_says_what_the_model_came_from(plain_client: TestClient, info: ModelInfo) -> None:
    found = plain_client.get("/v1/about").json()
    assert found["lineage"][-1] == {"what": "model folder", "digest": info.digest}
    assert found["lineage"][-2] == {"what": "weights", "digest": info.weights_digest}
    assert found["logit_scale"] == info.logit_scale
    assert found["card"].startswith("---\n")


def test_the_golden_inputs_are_run_here(plain_client: TestClient, info: ModelInfo) -> None:
    found = plain_client.get("/v1/golden").json()
    assert found["holds"] is True
    assert {one["what"] for one in found["checks"]} == {
        "image_embeds",
        "text_embeds",
        "class_logits",
    }
    assert all(0 <= one["worst"] <= one["allowed"] for one in found["checks"])
    assert (found["pictures"], found["texts"]) == (4, 7)


def test_a_golden_check_that_does_not_hold_says_so(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    """What is in memory is right; what the folder records of it is another model's by now."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.rglob("*"):
        target = copy / path.relative_to(folder)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    with client(model=copy) as asking:
        with safe_open(copy / FolderFiles.GOLDEN, "np") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata()
        tensors["image_embeds"] = np.roll(tensors["image_embeds"], 1, axis=1)
        save_file(tensors, copy / FolderFiles.GOLDEN, metadata)
        found = asking.get("/v1/golden").json()
        assert found["holds"] is False
        assert [one["what"] for one in found["checks"] if not one["holds"]] == ["image_embeds"]
        (copy / FolderFiles.CARD).unlink()
        assert asking.get("/v1/about").json()["card"] == ""


def test_a_key_is_asked_for_then_scores_are_the_models_own(
    tab: Tab,
    keyed: tuple[Server, str],
    model: DualEncoder,
    sketched: Path,
    tmp_path: Path,
) -> None:
    server, secret = keyed
    info = read_model_info(sketched)
    file = tmp_path / "picture.png"
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(file)
    tab.open(server.url + "/")
    tab.wait("!document.getElementById('key-form').hidden")
    assert tab.run("document.activeElement.id") == "key"
    tab.send("Input.insertText", text=secret)
    tab.press("Enter", 13, "\r")
    tab.wait("!document.getElementById('golden').hidden")
    assert tab.run("document.getElementById('name').textContent") == info.name
    assert info.digest in tab.run("document.getElementById('lineage').textContent")
    assert tab.run("document.getElementById('key').value") == ""
    assert secret not in tab.run("document.documentElement.outerHTML")
    assert tab.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0

    tab.run(f"document.getElementById('texts').value = {json.dumps(chr(10).join(TEXTS))}")
    tab.choose("#file", file)
    tab.wait("!document.getElementById('classes').hidden")
    rows = tab.run(
        "[...document.querySelectorAll('#score-rows tr')]"
        ".map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    image = checkpoint_images(model, [file.read_bytes()])[0]
    cosines = checkpoint_texts(model, TEXTS) @ image
    shares = torch.softmax(torch.tensor(cosines * info.logit_scale), 0).numpy()
    wanted = {
        text: (share, cosine) for text, share, cosine in zip(TEXTS, shares, cosines, strict=True)
    }
    assert [row[0] for row in rows] == sorted(TEXTS, key=lambda text: -wanted[text][1])
    for text, share, cosine in rows:
        assert abs(float(share.removesuffix(" %")) / 100 - wanted[text][0]) < 2e-3
        assert abs(float(cosine) - wanted[text][1]) < 2e-4
    asking = {"content": file.read_bytes(), "headers": {"content-type": "image/png"}}
    asking["headers"]["x-api-key"] = secret
    answer = httpx.post(f"{server.url}/v1/classify", **asking)
    best = answer.json()["results"][0]["classes"][0]
    shown = tab.run("document.querySelector('#class-tables .best').innerText")
    assert shown.split("\t")[0].strip() == best["label"]
    said = tab.run("document.getElementById('status').textContent")
    assert f"Class: {best['label']}" in said
    found = httpx.post(f"{server.url}/v1/search?k=8", **asking).json()["results"]
    rows = tab.run("[...document.querySelectorAll('#near-rows li')].map(row => row.innerText)")
    assert [row.split("\n")[0] for row in rows] == [one["name"] for one in found]
    assert f"Nearest of the index: {found[0]['name']}" in said
    tab.wait("[...document.querySelectorAll('#near-rows img')].every(one => one.naturalWidth)")
    assert tab.run("document.querySelectorAll('#near-rows img').length") == 8


def test_a_picture_that_cannot_be_read_is_said_and_nothing_else_asked(
    tab: Tab, keyed: tuple[Server, str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    tab.choose("#file", bad)
    tab.wait("document.getElementById('alert').textContent")
    assert "images[0]" in tab.run("document.getElementById('alert').textContent")
    own = keyed[0].url
    away = [one for one in tab.asked if not one.startswith((own, "blob:", "data:"))]
    assert away == []
    refused = [one for one in tab.problems if "Content Security Policy" in one]
    assert refused == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_no_violation(
    tab: Tab, keyed: tuple[Server, str], width: int, scheme: str, tmp_path: Path
) -> None:
    """Before a key is given, and with everything shown."""
    server, secret = keyed
    try:
        axe = axe_script()
    except Missing as missing:
        pytest.skip(str(missing))
    stream = io.BytesIO()
    Image.new("RGB", (400, 300), (200, 30, 30)).save(stream, "PNG")
    (tmp_path / "red.png").write_bytes(stream.getvalue())
    tab.show_as(width=width, scheme=scheme)
    tab.open(server.url + "/")
    tab.wait("!document.getElementById('key-form').hidden")
    tab.run(axe)
    assert _violations(tab) == []
    tab.run(f"document.getElementById('key').value = {json.dumps(secret)}")
    tab.run("document.getElementById('key-form').requestSubmit()")
    tab.wait("!document.getElementById('golden').hidden")
    tab.wait("!document.getElementById('drift').hidden")
    tab.run(f"document.getElementById('texts').value = {json.dumps(chr(10).join(TEXTS))}")
    tab.choose("#file", tmp_path / "red.png")
    tab.wait("!document.getElementById('classes').hidden")
    tab.wait("!document.getElementById('near').hidden")
    tab.run("document.querySelector('details').open = true")
    assert _violations(tab) == []
    wide = tab.run("document.documentElement.scrollWidth")
    assert wide <= width, "nothing is to be scrolled sideways"


def test_the_keyboard_reaches_everything_in_order(tab: Tab, keyed: tuple[Server, str]) -> None:
    tab.run("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    tab.run("document.body.tabIndex = -1; document.body.focus()")
    reached = []
    for _ in range(6):
        tab.press("Tab", 9)
        reached.append(tab.run("document.activeElement.id || document.activeElement.tagName"))
    assert reached == ["file", "texts", "go", "SUMMARY", "card", "A"]


def test_boxes_lie_on_the_picture(tab: Tab, detector_folder: Path, tmp_path: Path) -> None:
    """As ``/v1/detect`` has them, in a picture that EXIF turns; with nothing that axe minds."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    noise = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    file = tmp_path / "turned.jpg"
    Image.fromarray(noise).resize((300, 200), Image.Resampling.BICUBIC).save(file, exif=exif)
    labels = ["red circle", "blue square"]
    with serve_plain(tmp_path, {"PTFT_MODEL": str(detector_folder), "PTFT_THREADS": "1"}) as server:
        tab.show_as(width=360, scheme="light")
        tab.open(server.url + "/")
        tab.wait("!document.getElementById('about').hidden")
        tab.run(f"document.getElementById('texts').value = {json.dumps(chr(10).join(labels))}")
        tab.choose("#file", file)
        tab.wait("document.getElementById('status').textContent.includes('Found')")
        form = {"labels": labels, "templates": "{}", "threshold": 0.1, "most": 20}
        files = {"images": ("turned.jpg", file.read_bytes(), "image/jpeg")}
        answer = httpx.post(f"{server.url}/v1/detect", data=form, files=files, timeout=60)
        (found,) = answer.json()["results"]
        assert (found["width"], found["height"]) == (200, 300)
        assert len(found["boxes"]) > 1
        marks = json.loads(tab.run(MARKS))
        wanted = [
            [x / 200, y / 300, right / 200, bottom / 300]
            for x, y, right, bottom in (one["box"] for one in found["boxes"])
        ]
        np.testing.assert_allclose([one["box"] for one in reversed(marks)], wanted, atol=0.01)
        said = [f"{one['label']} {100 * one['score']:.1f} %" for one in found["boxes"]]
        assert [one["text"] for one in reversed(marks)] == said
        rows = tab.run("document.getElementById('found-rows').rows.length")
        assert rows == len(found["boxes"])
        assert tab.run("document.documentElement.scrollWidth") <= 360
        right = "document.getElementById('shown').getBoundingClientRect().right"
        words = "[...document.querySelectorAll('#marks b')]"
        assert tab.run(f"{words}.every(one => one.getBoundingClientRect().right <= {right} + 1)")
        try:
            tab.run(axe_script())
        except Missing as missing:
            pytest.skip(str(missing))
        assert _violations(tab) == []


MARKS = """(() => {
  const whole = document.getElementById("preview").getBoundingClientRect();
  return JSON.stringify([...document.querySelectorAll("#marks span")].map((mark) => {
    const one = mark.getBoundingClientRect();
    const box = [
      (one.left - whole.left) / whole.width, (one.top - whole.top) / whole.height,
      (one.right - whole.left) / whole.width, (one.bottom - whole.top) / whole.height,
    ];
    return { text: mark.textContent, box };
  }));
})()"""


def _violations(tab: Tab) -> list[str]:
    found = json.loads(tab.run(AXE_RUN))
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]
