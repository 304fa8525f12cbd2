"""Pictures for the card: whose they may be, what they show, and the same bytes again."""

import base64
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.artifact import FolderFiles, RunFiles, write_json
from ptft.errors import ArtifactError
from ptft.export.samples import write_pictures
from ptft.model_source import Checkpoint, LocalSource, ModelFolder
from ptft.recipe.load import parse_recipe
from ptft.report.neighbours.record import Answer, NearestFound, NeighbourPicture, Neighbours

SCENES = {"kind": "scenes"}
FOLDER = {"kind": "folder", "train": "a", "val": "b"}
CURVES = b"\x89PNG\r\n\x1a\n, and curves"
COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250)}


def picture(colour: tuple[int, int, int]) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@pytest.fixture
def final(tmp_path: Path) -> Checkpoint:
    """The final model of a run that has looked at what is nearest."""
    run = tmp_path / "run"
    (run / RunFiles.FINAL).mkdir(parents=True)
    (run / RunFiles.RUN).write_text("{}")
    (run / RunFiles.CURVES).write_bytes(CURVES)
    known = Neighbours(
        source="scenes, val: 2 of 2 pictures",
        texts="captions",
        pictures={
            name: NeighbourPicture(name, f"a {name} $5 bird", picture(COLOURS[name]))
            for name in COLOURS
        },
        after=[
            Answer(
                "text_to_picture",
                [NearestFound(True, picture="red"), NearestFound(False, picture="blue")],
                1,
                2,
                text="a red $x_1 bird",
            ),
            Answer(
                "picture_to_text", [NearestFound(None, text="a blue bird")], None, 2, picture="blue"
            ),
        ],
    )
    write_json(run / RunFiles.NEIGHBOURS, asdict(known))
    return Checkpoint(run / RunFiles.FINAL, run, "final")


def recipe(data: dict[str, Any], *others: dict[str, Any]) -> Any:
    evaluate = [{"kind": "retrieval", "name": f"e{n}", "data": d} for n, d in enumerate(others)]
    optim = {"samples_seen": 64, "global_batch": 8}
    values = {"name": "x", "model": {"name": "ViT-B-32"}, "data": data, "optim": optim}
    return parse_recipe({**values, "evaluate": evaluate}, where="test")


def written(final: LocalSource, to: Path, of: Any, *, examples: bool = False) -> dict[str, bytes]:
    to.mkdir()
    write_pictures(final, to, of, examples=examples)
    return {p.relative_to(to).as_posix(): p.read_bytes() for p in to.rglob("*") if p.is_file()}


def test_the_same_bytes_and_what_they_show(final: Checkpoint, tmp_path: Path) -> None:
    one = written(final, tmp_path / "one", recipe(SCENES))
    assert set(one) == {FolderFiles.CURVES, FolderFiles.EXAMPLES}
    assert one == written(final, tmp_path / "two", recipe(SCENES))
    shown = np.asarray(Image.open(tmp_path / "one" / FolderFiles.EXAMPLES).convert("RGB"))
    top, bottom = np.array_split(shown, 2)
    for colour in COLOURS.values():
        assert (top == colour).all(axis=-1).sum() > 1000
    assert (bottom == COLOURS["blue"]).all(axis=-1).sum() > 1000
    assert not (bottom == COLOURS["red"]).all(axis=-1).any()
    assert len(one[FolderFiles.EXAMPLES]) < 100_000
    # a model folder hands its own on
    assert written(ModelFolder(tmp_path / "one", "one"), tmp_path / "three", None) == one


@pytest.mark.parametrize("of", [recipe(FOLDER), recipe(SCENES, FOLDER), None])
def test_what_lies_on_a_disk_is_shown_only_when_asked(
    final: Checkpoint, tmp_path: Path, of: Any
) -> None:
    assert set(written(final, tmp_path / "out", of)) == {FolderFiles.CURVES}
    asked = written(final, tmp_path / "asked", of, examples=True)
    assert set(asked) == {FolderFiles.CURVES, FolderFiles.EXAMPLES}


def test_nothing_to_show(final: Checkpoint, tmp_path: Path) -> None:
    for name in (RunFiles.CURVES, RunFiles.NEIGHBOURS):
        (final.folder.parent / name).unlink()
    assert written(final, tmp_path / "out", recipe(SCENES)) == {}


@pytest.mark.parametrize("what", ["link", "text"])
def test_a_file_of_this_machine_is_not_taken_for_a_picture(
    final: Checkpoint, tmp_path: Path, what: str
) -> None:
    """Somebody's run says with a link what an export, and then a push, would publish."""
    key, curves = tmp_path / "id_ed25519", final.folder.parent / RunFiles.CURVES
    key.write_bytes(CURVES if what == "link" else b"-----BEGIN OPENSSH PRIVATE KEY-----")
    curves.unlink()
    curves.symlink_to(key) if what == "link" else curves.write_bytes(key.read_bytes())
    with pytest.raises(ArtifactError, match=r"curves\.png: .*; allowed: a PNG, and no link$"):
        written(final, tmp_path / "out", recipe(SCENES))
    assert not list((tmp_path / "out").rglob("*.png"))
