"""Whether the start's own record tells that it was selected on what is to be retained."""

import json
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import RunFiles
from ptft.compare.selected import luck_told, selection_luck
from tests.support.comparisons import comparison, from_run

LOOKED_AT = {"kind": "scenes", "size": 32, "train": 4096, "val": 16, "test": 16, "style": "line"}


def log_looks(start: Path, looks: list[float]) -> None:
    log = [
        {"step": n, "seen": 8 * n, "retrieval/i2t_recall@1": v, "retrieval/images": 16}
        for n, v in enumerate(looks)
    ]
    (start / RunFiles.LOG).write_text("".join(json.dumps(one) + "\n" for one in log))


@pytest.mark.parametrize(
    ("early_stop", "data", "told"),
    [
        ({"every": 2}, LOOKED_AT, True),
        (None, LOOKED_AT, False),
        ({"every": 2}, {**LOOKED_AT, "val": 32}, False),
        ({"every": 2}, {**LOOKED_AT, "style": "shaded"}, False),
    ],
)
def test_a_start_that_was_stopped_early_on_a_retained_set_is_told(
    early_stop: Any, data: dict[str, Any], told: bool, tmp_path: Path
) -> None:
    """However many samples it learned from."""
    start = tmp_path / "start"
    wanted = from_run(comparison(tmp_path), start, data, early_stop=early_stop)
    log_looks(start, [0.1, 0.2, 0.5, 0.475])  # 16 pictures: the best is known to within 0.125
    luck = selection_luck(wanted)
    assert luck == ({"before": pytest.approx(0.95)} if told else {})
    assert told == ("before 95.0 %" in (luck_told(luck) or ""))
    if told:
        log_looks(start, [0.1, 0.2, 0.5, 0.475, 0.5])  # with the figure that a run ends with
        assert selection_luck(wanted) == {"before": pytest.approx(0.95)}
        log_looks(start, [0.1, 0.3, 0.5, 0.35, 0.2, 0.5])  # not what came before, nor what is worse
        assert selection_luck(wanted) == {"before": pytest.approx(0.7)}
        log_looks(start, [0.1, 0.3, 0.45, 0.5, 0.5])  # it was rising to its end
        assert selection_luck(wanted) == {}


def test_nothing_is_told_of_a_start_without_a_record(tmp_path: Path) -> None:
    assert selection_luck(comparison(tmp_path)) == {}
