"""Records of a run, a model folder and a comparison of somebody's, with values of other types."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import RunFiles
from ptft.compare.queries import QUERIES, read_queries
from ptft.errors import PtftError
from ptft.look.guess import guess_section
from ptft.model_record import recorded_figures
from ptft.report.boxes.record import BOXES_FILE, read_boxes
from ptft.report.neighbours.record import read_neighbours
from ptft.verify.run import check_run

ANSWER = {"kind": "text_to_picture", "found": [{"right": None}], "rank": 1, "among": 2}
ODD: list[Any] = [None, [], "x\0\x1b[31m", -1, {"a": None}, [{"a": [None]}]]


def figures_of(folder: Path) -> object:
    return recorded_figures(json.loads((folder / "metrics.json").read_text()), "metrics.json")


READ: dict[str, tuple[str, Callable[[Path], object], list[Any]]] = {
    "neighbours": (
        RunFiles.NEIGHBOURS,
        read_neighbours,
        [*ODD[:1], *ODD[2:4], *[{key: one} for key in ("pictures", "after") for one in ODD[2:4]],
         {"after": [{**ANSWER, "found": [1]}]}, {"after": [{**ANSWER, "rank": "x"}]},
         {"pictures": {"a": {"source": 1}}}, {"surprise": 1, "pictures": 1}],
    ),
    "boxes": (BOXES_FILE, read_boxes, [*ODD[:1], *ODD[2:], [1], {"a": {"pictures": [{}]}}]),
    "queries": (QUERIES, read_queries, [*ODD, {"classes": [1], "labels": [], "names": []}]),
    "figures": ("metrics.json", figures_of, [*ODD, {"a": [1]}]),
    "saved": (
        "dataset_dict.json",
        lambda folder: guess_section(str(folder)),
        [*ODD[:4], {"splits": 1}, {"splits": [[1]]}],
    ),
    "run": (
        RunFiles.RUN,
        lambda folder: check_run("run", folder, folder / RunFiles.FINAL),
        [*ODD[:4], ODD[5]],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "place"), [(k, n) for k in READ for n in range(len(READ[k][2]))])
def test_a_record_of_other_types_is_refused_in_one_line(
    kind: str, place: int, tmp_path: Path
) -> None:
    name, read, values = READ[kind]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(values[place]))
    with pytest.raises(PtftError) as caught:
        read(tmp_path)
    said = str(caught.value)
    assert name in said and "\n" not in said and "\x1b" not in said


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / RunFiles.NEIGHBOURS).write_text(json.dumps({"after": [ANSWER]}))
    found = read_neighbours(tmp_path)
    assert found is not None and found.after[0].found[0].right is None
    assert recorded_figures({"a": {"top1": 0.5}}, "x") == {"a": {"top1": 0.5}}
