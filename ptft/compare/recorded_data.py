"""Checks that a comparison's data are still those that its finished cells were run on."""

import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, read_json, write_json
from ptft.compare.board import STARTS, Board
from ptft.compare.queries import QUERIES
from ptft.compare.results import Cells
from ptft.data import SampleSet, open_split
from ptft.recipe import Comparison
from ptft.recipe.check import Split
from ptft.runs.data_record import accepted_now, hold_against, record_data, sets_of
from ptft.speech import say

__all__ = ["check_recorded_data"]

_LEARNED: tuple[Split, ...] = ("train",)
_TOLD: tuple[Split, ...] = ("val", "test")
_ACCEPTED = "accepted.json"  # each time that a comparison went on with other data


def check_recorded_data(
    comparison: Comparison, board: Board, cells: Cells, *, accept: bool, log: logging.Logger
) -> list[str]:
    """Record the digests of the data, or compare them with those that the comparison began with.

    Args:
        accept: go on with other data; finished cells stay as they are.

    Returns:
        A sentence for the report each time that other data were accepted.

    Raises:
        DataError: something changed, and that is not accepted.
    """
    sets, folder = _sets(comparison), board.folder
    finished = len(cells.all())
    if not finished and not (folder / RunFiles.DATA).is_file():
        with tempfile.TemporaryDirectory() as made:
            record_data(Path(made), comparison, sets)
            if board.first(RunFiles.DATA, (Path(made) / RunFiles.DATA).read_bytes()):
                return []  # else another worker was first
    changes, notes = hold_against(folder, comparison, accept=accept, sets=sets)
    for note in notes:
        say(log, note)
    path = folder / _ACCEPTED
    accepted: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    if changes:
        accepted.append(accepted_now(changes, finished))
        write_json(path, accepted)
        for figures in (*folder.glob("start_*.json"), folder / QUERIES):
            figures.unlink(missing_ok=True)  # of the starting model, on the data as they were
        board.put(_ACCEPTED)
        board.put(RunFiles.DATA)
        board.forget([*STARTS, QUERIES])
    return [
        f"The data changed after {entry['step']} cells were finished, which are of the data as "
        f"they were: {'; '.join(entry['changes'])}."
        for entry in accepted
    ]


def _sets(comparison: Comparison) -> dict[str, Callable[[], SampleSet]]:
    """Every set that an arm learns from, is chosen on or is reported on."""
    seed, target = comparison.seed, comparison.evaluate[0]
    sets = sets_of(comparison)
    key, section = f"evaluate.{target.label}.data", target.data
    if section is None:
        key, section = "data", comparison.data
    for split in _TOLD:
        sets[f"{key}.{split}"] = partial(open_split, section, split, seed=seed)
    replayed = any(arm.kind == "replay" for arm in comparison.compare.arms)
    for item in comparison.compare.retain:
        if (kept := item.data) is None:
            continue  # an error, of which the target tells
        learned = replayed or item.label in comparison.compare.ask_train
        for split in (*_LEARNED, *_TOLD) if learned else _TOLD:
            sets[f"compare.retain.{item.label}.data.{split}"] = partial(
                open_split, kept, split, seed=seed
            )
    return sets
