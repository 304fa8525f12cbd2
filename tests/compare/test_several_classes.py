"""A comparison where a sample has several classes."""

import json
from pathlib import Path

import pytest

from ptft.compare import compare
from ptft.compare.arms import arm_recipe
from ptft.compare.target import Target
from ptft.errors import RecipeError
from ptft.recipe import Comparison
from ptft.recipe.load import load_comparison
from ptft.speech import SILENT
from tests.support.comparisons import comparison


def several(folder: Path, **section: object) -> Comparison:
    comparison(folder)
    path = folder / "comparison.yaml"
    values = json.loads(path.read_text())
    values["data"]["labels"] = "many"
    values |= {"objective": {"kind": "classify"}, "evaluate": [{"kind": "classify"}]}
    values["compare"] |= {"metric": None, "trials": 1, "seeds": 2, "budgets": [8, 16], **section}
    path.write_text(json.dumps(values))
    return load_comparison(path)


def test_arms_are_compared_by_pictures(tmp_path: Path) -> None:
    wanted = several(tmp_path, wise=[])
    outcome = compare(wanted, log=SILENT)
    assert outcome.left == 0
    assert {cell.arm for cell in outcome.cells} == {"zero_shot", "full"}
    for cell in outcome.cells:
        assert cell.val_of == list(range(len(cell.val_hits))) and len(cell.val_of) == 16
        assert len(cell.test_hits) == 16  # one question a picture, whatever its labels
        assert cell.test == pytest.approx(cell.test_hits.count("1") / 16)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "labelled samples" in report and "labels of each class" not in report


def test_a_budget_is_one_of_samples(tmp_path: Path) -> None:
    wanted = several(tmp_path)
    target = Target(wanted)
    assert (target.per_class, target.samples(8), target.labels_left) == (False, 8, 32)
    made = arm_recipe(
        wanted, wanted.compare.arms[1], budget=8, samples=8, seed=0, chosen={}, folder="unused"
    )
    assert (made.data.limit, made.data.shots) == (8, None)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"metric": "map"}, "compare.metric: 'map'; .*all_first"),
        ({"arms": [{"kind": "tip_adapter"}]}, "'tip_adapter' with data.labels 'many'"),
        ({"arms": [{"kind": "lp_ft"}]}, "objective.head: 'probe' with data.labels 'many'"),
        ({"arms": [{"kind": "flyp"}]}, "objective.templates: .* with data.labels 'many'"),
    ],
)
def test_what_has_no_error_or_no_meaning_is_refused(
    section: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        compare(several(tmp_path, **section), log=SILENT)
