"""Retained sets whose train side is asked, since the start did not learn from it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ptft.compare import compare
from ptft.compare.keys import base_values
from ptft.compare.results import Cells
from ptft.compare.run import check_comparison
from ptft.compare.selected import selection_luck
from ptft.compare.target import Target
from ptft.compare.unlearned import check_unlearned
from ptft.errors import PtftError, RecipeError
from ptft.recipe import Comparison
from tests.support.comparisons import comparison, from_run

KEPT = {"kind": "scenes", "size": 32, "train": 48, "val": 16, "test": 16, "style": "line"}


def wanted(folder: Path, **section: Any) -> Comparison:
    item = {"kind": "retrieval", "name": "before", "ks": [5], "data": KEPT}
    return comparison(folder, **{"retain": [item], "ask_train": ["before"], **section})


def test_every_arm_is_asked_val_and_train(tmp_path: Path) -> None:
    asked = wanted(tmp_path, seeds=1, wise=[])
    target = Target(asked)
    [before] = target.retained
    assert len(before.val) == 16 + 48
    assert before.val.name(15).startswith("val") and before.val.name(16).startswith("train")
    found = compare(asked)
    for cell in Cells(found.folder, asked).all():
        assert len(cell.val_kept["before"]) == 2 * (16 + 48)  # both ways
    assert "train as well" in (found.folder / "report.md").read_text()


def test_it_is_another_comparison_and_without_it_the_same_as_ever(tmp_path: Path) -> None:
    asked = wanted(tmp_path)
    plain = wanted(tmp_path, ask_train=[])
    assert base_values(asked) != base_values(plain)
    assert "ask_train" not in base_values(plain)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"ask_train": ["befor"]}, "did you mean 'before'"),
        ({"arms": [{"kind": "zero_shot"}, {"kind": "replay"}]}, "the arm 'replay' learns from it"),
        (
            {
                "retain": [
                    {
                        "kind": "retrieval",
                        "name": "before",
                        "data": {"kind": "folder", "val": "a", "test": "b"},
                    }
                ]
            },
            "has no train",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    section: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(PtftError, match=told):
        wanted(tmp_path, **section)


def test_no_arm_that_replays_joins_by_default(tmp_path: Path) -> None:
    def kinds(**section: Any) -> list[str]:
        values = json.loads((tmp_path / "comparison.yaml").read_text())
        values["compare"] = {**values["compare"], **section}
        del values["compare"]["arms"]
        return [arm.kind for arm in Comparison.model_validate(values).compare.arms]

    wanted(tmp_path)
    assert "replay" not in kinds()
    assert "replay" in kinds(ask_train=[])


def test_a_start_that_learned_from_it_is_refused_by_its_record(tmp_path: Path) -> None:
    asked = wanted(tmp_path)
    with pytest.raises(RecipeError, match="'before': the start learned from 48 of its pictures"):
        check_comparison(from_run(asked, tmp_path / "learned", {**KEPT, "train": 64}))
    other = {**KEPT, "style": "shaded"}
    before = {"init": {"from": str(tmp_path / "learned")}, "model": None}
    with pytest.raises(RecipeError, match="48 of its pictures"):
        check_comparison(from_run(asked, tmp_path / "after", other, **before))
    target = Target(asked)
    check_unlearned(from_run(asked, tmp_path / "other", other), target)
    gone = {"kind": "shards", "train": str(tmp_path / "gone.tar")}
    check_unlearned(from_run(asked, tmp_path / "moved", gone), target)


def test_where_val_chose_the_start_train_alone_is_asked(tmp_path: Path) -> None:
    data = {**KEPT, "style": "line", "train": 64}
    asked = from_run(wanted(tmp_path), tmp_path / "chosen", data, early_stop={"every": 2})
    [before] = Target(asked).retained
    assert len(before.val) == 48
    assert selection_luck(asked) == {}
