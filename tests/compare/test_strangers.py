"""Cells of somebody's comparison are held to what they may be, and write nothing into recipes."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptft.compare.class_view import class_view
from ptft.compare.page import choose
from ptft.compare.queries import QUERIES, ClassQueries, read_queries
from ptft.compare.results import Cell, Cells
from ptft.errors import ArtifactError
from ptft.recipe import Comparison
from ptft.recipe.load import load_comparison
from tests.support.comparisons import cell


@pytest.fixture
def wanted() -> Comparison:
    values = load_comparison("compare/scenes").model_dump(mode="json", by_alias=True)
    values["compare"] |= {"metric": None, "budgets": [64]}
    values["compare"]["arms"] = [{"kind": kind} for kind in ("zero_shot", "full", "scratch")]
    return Comparison.model_validate(values)


@pytest.fixture
def cells(wanted: Comparison, tmp_path: Path) -> Cells:
    """Three arms at one seed, finished, and the mix of one."""
    kept = Cells(tmp_path, wanted)
    for arm, share in (("zero_shot", 0.4), ("full", 0.5), ("scratch", 0.1)):
        kept.write(replace(cell(arm, share), kind=arm))
    kept.write(replace(cell("full+wise", 0.5), kind="full", chosen={"alpha": 0.5}))
    assert len(kept.all()) == 4
    return kept


def change(cells: Cells, name: str, /, **values: Any) -> None:
    path = next(cells.folder.glob(f"{name}_*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"val": math.nan}, "val: "),
        ({"test": "<b>"}, "test: "),
        ({"budget": 2**70}, "budget: "),
        ({"val_hits": 1}, "val_hits"),
        ({"test_hits": "01x"}, "test_hits"),
        ({"test_hits": [math.inf]}, "test_hits"),
        ({"test_hits": ""}, "without queries"),
        ({"test_hits": "01"}, "test_hits: 2; allowed: "),
        ({"val_of": [1]}, "val_of: 1; allowed: "),
        ({"train_of": [1]}, "train_of: 1; allowed: 0, or 0"),
        ({"test_said": [1]}, "test_said: 1; allowed: "),
        ({"val_retained": [1]}, "val_retained: "),
        ({"test_retained": {"a": 1.0}}, "test_retained: not of "),
        ({"val_kept": {}}, "val_kept: not of before"),
        ({"test_kept": {"before": "0"}}, "test_kept: not of before"),
        ({"passed_over": {"a": 1}}, "passed_over"),
        ({"ece": []}, "ece: "),
        ({"costs": {"cpu_seconds": None}}, "costs.cpu_seconds: "),
        ({"costs": {"a": 1}}, "costs.a: "),
        ({"trials": [{}]}, "trials.0.values: "),
        ({"a": 1}, "a: Unexpected"),
        ({"arm": "zero_shot"}, "not full as full at 64, seed 0"),
        ({"kind": "zero_shot"}, "not full as full at 64, seed 0"),
        ({"chosen": {"run.mirror": "s3://a"}}, "chosen: 'run.mirror'; allowed: optim.lr"),
        ({"chosen": {"data.train": "a"}}, "chosen: 'data.train'; allowed: optim.lr"),
    ],
)
def test_a_cell_of_other_types_is_refused_in_one_line(
    cells: Cells, values: dict[str, Any], said: str
) -> None:
    change(cells, "full", **values)
    with pytest.raises(ArtifactError) as caught:
        cells.all()
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", ["1\nrun: {mirror: 's3://a'}", math.nan, 2, None])
def test_a_share_of_a_mix_is_a_share(cells: Cells, alpha: object) -> None:
    """It stands in the head of recommended.yaml."""
    change(cells, "full+wise", chosen={"alpha": alpha})
    with pytest.raises(ArtifactError, match=r"chosen\.alpha: .*allowed: 0 to 1"):
        cells.all()


def test_cells_of_another_number_of_trials_are_held_too(cells: Cells) -> None:
    path = next(cells.folder.glob("full_*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chosen": {"run.dir": "/a"}}))
    with pytest.raises(ArtifactError, match=r"chosen: 'run\.dir'"):
        cells.relatives("full", 64, 0)


@pytest.mark.parametrize(
    "values",
    [{"labels": [0, 2]}, {"labels": [0, -1]}, {"names": ["a"]}, {"places": []}, {"labels": "a"}],
)
def test_queries_that_do_not_fit_each_other(values: dict[str, Any], tmp_path: Path) -> None:
    plain = {"classes": ["a", "b"], "labels": [0, 1], "names": ["0", "1"], "places": [0, 1]}
    (tmp_path / QUERIES).write_text(json.dumps(plain))
    assert read_queries(tmp_path) is not None
    (tmp_path / QUERIES).write_text(json.dumps(plain | values))
    with pytest.raises(ArtifactError, match=QUERIES):
        read_queries(tmp_path)


@pytest.mark.parametrize("spoil", [lambda said: said[:-1], lambda said: [*said[:-1], 9]])
def test_answers_that_are_of_no_class(
    wanted: Comparison, cells: Cells, spoil: Callable[[list[int]], list[int]]
) -> None:
    found: list[Cell] = cells.all()
    count = len(found[0].test_hits)
    told = [replace(one, test_said=[0] * count) for one in found]
    queries = ClassQueries(["a", "b"], [0] * count, ["a"] * count, list(range(count)))
    choice = choose(wanted, told).chosen[-1]
    assert class_view(told, choice, queries, None) is not None
    told[0] = replace(told[0], test_said=spoil(told[0].test_said))
    with pytest.raises(ArtifactError, match="test_said"):
        class_view(told, choice, queries, None)
