"""Whether the service sees traffic of another drawing style, and is silent on the style it knows.

A model is trained on the emoji of one style, noto, and exported with its sketch; its test pictures,
and those of the other styles, are sent to the service. A window is 500 pictures of one style, drawn
with repetition; each begins with a service that has seen nothing. The emoji of families are all
in test, so that no model was trained on their kind: they are left out, and what the service makes
of traffic with them is said. Twemoji draws much as Noto does, and Blobmoji began as Noto's own
older drawings: how far those count as other styles is said, and not held to a bar. Needs
../shared/data.
"""

import json
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from serving.drift import JUDGED
from serving.routes import create_app
from serving.settings import Settings
from tests.bench._parts import ptft, shared_data

__all__ = ["BARS", "run"]

_OWN = "noto"
_OTHERS = ("fluenthc", "fluentflat", "fluent3d")
_NEAR = ("twemoji", "blob")
_PICTURES, _WINDOWS, _A_REQUEST = 500, 20, 50

_SMOKE = ("optim.samples_seen=64", "optim.global_batch=32", "data.limit=80")

BARS = {
    "same_style_windows": (">=", _WINDOWS),
    "same_style_alarms": ("<=", 0),
    "other_styles": (">=", len(_OTHERS)),
    "most_requests_until_seen": ("<=", 500),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    """Train, export, ask, print the table, return the figures."""
    emoji = shared_data("emoji") / "emoji"
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        small = ("model.text={width: 128, layers: 1, heads: 2, context_length: 32}", "evaluate=[]")
        options = (f"data.train={emoji}/{_OWN}/train-*.tar", f"data.val={emoji}/{_OWN}/val-*.tar")
        options += (f"run.dir={home / 'run'}", "run.trackers=[]", *small)
        options += _SMOKE if smoke else ("optim.samples_seen=10240",)
        minutes = ptft("train", "pretrain/emoji", *options, smoke=smoke)
        exported = home / "model"
        ptft("export", home / "run", exported, "--precision", "fp32", "--no-measure", smoke=smoke)
        print(f"trained and exported on {_OWN} in {minutes:.1f} minutes\n")
        figures = _ask_all(exported, emoji, smoke=smoke)
    return {"minutes": round(minutes, 1), **figures}


def _ask_all(model: Path, emoji: Path, *, smoke: bool) -> dict[str, float]:
    """Send what there is to the service, print the table, and count."""
    rng = np.random.default_rng(0)
    windows = 1 if smoke else _WINDOWS
    alarms, (value, high) = _same(model, _pictures(emoji, _OWN), windows, rng)
    print(f"{'traffic':<20} {'distance':>9} {'band':>9}  after {_PICTURES} pictures")
    print(f"{_OWN:<20} {value:9.4f} {high:9.4f}  {alarms} of {windows} windows moved; the farthest")
    rows = [(style, _pictures(emoji, style)) for style in (*_OTHERS, *_NEAR)]
    rows.append((f"{_OWN} with families", _pictures(emoji, _OWN, families=True)))
    needed = {}
    for name, pictures in rows[: 1 if smoke else None]:
        needed[name], value, high = _other(model, pictures, rng)
        said = f"moved after {needed[name]} requests" if needed[name] else "has not moved"
        print(f"{name:<20} {value:9.4f} {high:9.4f}  {said}")
    figures = {
        "same_style_windows": windows,
        "same_style_alarms": alarms,
        "other_styles": sum(bool(needed.get(style)) for style in _OTHERS),
    }
    if all(needed.get(style) for style in _OTHERS):
        figures["most_requests_until_seen"] = max(needed[style] for style in _OTHERS)
    return figures


def _same(
    model: Path, pictures: list[bytes], windows: int, rng: np.random.Generator
) -> tuple[int, tuple[float, float]]:
    """How many windows gave an alarm, looked at every 50 pictures from the first that is judged;
    and the distance and bound at the end of the farthest."""
    alarms, ends = 0, []
    for _ in range(windows):
        with _service(model) as asking:
            moved = []
            for _ in range(_PICTURES // _A_REQUEST):
                chosen = rng.integers(len(pictures), size=_A_REQUEST)
                _ask(asking, [pictures[index] for index in chosen])
                found = _image(asking)
                moved.append(found["moved"])
            assert moved[-1] is not None and moved[JUDGED // _A_REQUEST - 2] is None
            alarms += any(moved)
            ends.append((found["value"], found["high"]))
    return alarms, max(ends)


def _other(
    model: Path, pictures: list[bytes], rng: np.random.Generator
) -> tuple[int, float, float]:
    """Requests of a picture each until an alarm, 0 without one; distance and bound at the end."""
    needed = 0
    with _service(model) as asking:
        for count, index in enumerate(rng.integers(len(pictures), size=_PICTURES), 1):
            _ask(asking, [pictures[index]])
            if not needed and count % 10 == 0 and _image(asking)["moved"]:
                needed = count
        found = _image(asking)
    return needed, found["value"], found["high"]


def _service(model: Path) -> TestClient:
    return TestClient(create_app(lambda: Settings(model=model)))


def _ask(asking: TestClient, pictures: list[bytes]) -> None:
    files = [("images", one) for one in pictures]
    while (answer := asking.post("/v1/embed/image", files=files)).status_code == 503:
        time.sleep(0.05)  # it loads
    assert answer.status_code == 200, answer.text


def _image(asking: TestClient) -> dict:
    (found,) = [one for one in asking.get("/v1/drift").json()["kinds"] if one["kind"] == "image"]
    return found


def _pictures(emoji: Path, style: str, *, families: bool = False) -> list[bytes]:
    """Of the test concepts, which no split of training has in any style."""
    found: dict[str, bytes] = {}
    kept: set[str] = set()
    for path in sorted((emoji / style).glob("test-*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                name, _, kind = member.name.rpartition(".")
                stream = shard.extractfile(member)
                assert stream is not None
                if kind == "webp":
                    found[name] = stream.read()
                elif kind == "json" and (families or json.load(stream)["family"] != "family"):
                    kept.add(name)
    return [picture for name, picture in found.items() if name in kept]
