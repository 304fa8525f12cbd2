"""Early stopping: which model is left, when a run ends, and that neither depends on a kill."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ptft.artifact import RunFiles
from ptft.errors import RecipeError
from ptft.evaluate import evaluate
from ptft.model import load_model
from ptft.recipe import EarlyStopSection, RetrievalEvaluation, ScenesData, load_recipe
from ptft.train.state.best import Best
from tests.support.killed import start, warm
from tests.support.runs import STEPS, interrupt, largest_difference, recipe, run

__all__ = ["warm"]  # the fixture

SCENES = {"kind": "scenes", "size": 32, "train": 80, "val": 16, "test": 16, "style": "line"}
CHANGES: dict[str, Any] = {
    "evaluate": [{"kind": "retrieval"}, {"kind": "retrieval", "name": "last", "split": "test"}],
    "early_stop": {
        "every": 2,
        "patience": 2,
        "metric": "t2i_recall@5",
        "retain": [{"kind": "retrieval", "name": "kept", "data": SCENES}],
        "retention": 0.5,
    },
}


def judged(
    looks: list[tuple[float, float]], *, cut: int = -1, **section: Any
) -> tuple[float, list[bool], int]:
    """The weight that is left, whether each look was the best, and the look that ended it.

    Looks are (target, retained); the model's one weight is the look's number. At ``cut`` all goes
    through what a checkpoint holds.
    """
    kept = RetrievalEvaluation(name="kept", data=ScenesData(), ks=[1])
    target = RetrievalEvaluation(ks=[1])
    model = nn.Linear(1, 1, bias=False)

    def made(state: Any) -> Best:
        stop = EarlyStopSection(retain=[kept], **section)
        return Best(model, stop, target, ScenesData(), 100, state)

    best, better, end = made({}), [], -1
    for number, (value, retained) in enumerate(looks):
        if number == cut:
            resumed = made(json.loads(json.dumps(best.state)))
            for name, tensor in resumed.tensors.items():
                tensor.copy_(best.tensors[name])
            best = resumed
        with torch.no_grad():
            model.weight.fill_(number)
        figures = {"retrieval": {"i2t_recall@1": value}, "kept": {"i2t_recall@1": retained}}
        better.append(best.compare(number, figures))
        if better[-1]:
            best.take()
        if best.over:
            end = number
            break
    with best.applied():
        return model.weight.item(), better, end


@pytest.mark.parametrize("cut", [-1, 1, 2, 3])
@pytest.mark.parametrize(
    ("looks", "left", "end"),
    [
        ([(0.1, 0.8), (0.3, 0.8), (0.2, 0.8), (0.3, 0.8), (0.9, 0.8)], 1, 3),  # of equals the first
        ([(0.1, 0.8), (0.3, 0.79), (0.9, 0.7), (0.4, 0.79), (0.2, 0.8)], 3, -1),  # 0.7: forgets
        ([(0.5, 0.8), (0.6, 0.1), (0.7, 0.1), (0.8, 0.1)], 0, 2),  # so the start is left
        ([(0.1, 0.0), (0.2, 0.0), (0.3, 0.5)], 2, -1),  # nothing was there to forget
    ],
)
def test_the_best_of_those_that_retain_enough_is_left(
    looks: list[tuple[float, float]], left: int, end: int, cut: int
) -> None:
    weight, better, ended = judged(looks, cut=cut, patience=2)
    assert (weight, ended) == (left, end)
    assert better[0], "the start is what is left if nothing is better"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder, **CHANGES).finished
    return folder


def looks(folder: Path, key: str = "retrieval/t2i_recall@5") -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / RunFiles.LOG).read_text().splitlines()]
    found: dict[int, float] = {}
    for line in lines:
        if key in line:
            found.setdefault(line["step"], line[key])
    return found


def test_a_run_leaves_the_best_model_it_looked_at(whole: Path) -> None:
    record = json.loads((whole / RunFiles.RUN).read_text())
    best, seen = record["best"], looks(whole)
    assert list(seen) == list(range(0, max(seen) + 1, 2))
    kept = looks(whole, "kept/i2t_recall@1")
    shares = {step: kept[step] / kept[0] if kept[0] else 1.0 for step in seen}
    allowed = [step for step in seen if shares[step] >= 0.5]
    assert best["step"] == max(allowed, key=lambda step: (seen[step], -step))
    section = load_recipe(whole / RunFiles.RECIPE)
    again = evaluate(load_model(whole), section.evaluate, section.data, seed=section.seed)
    assert again["retrieval"]["t2i_recall@5"] == best["target"] == seen[best["step"]]
    assert again == json.loads((whole / RunFiles.METRICS).read_text())
    assert any("is the best that was looked at" in note for note in record["notes"])
    assert [read["read"] for read in record["test_reads"]] == [["last"]], "at the end alone"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"optim__ema": 0.7, "model__image": "test_resnet"},
        {"adapt": {"kind": "lora"}},
        {"early_stop__patience": 1, "optim__lr": 1e-9},
    ],
    ids=["plain", "averaged", "lora", "ended"],
)
def test_resumed_it_leaves_the_same(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    changes = {**CHANGES, "early_stop": dict(CHANGES["early_stop"]), **more}
    uninterrupted = whole
    if more:
        uninterrupted = tmp_path / "whole"
        assert run(uninterrupted, **changes).finished
    # at a step with a look, which then waits for the resume, or at the one before it
    cut = 1 if "early_stop__patience" in more else 4
    interrupt(monkeypatch, tmp_path / "cut", cut, **changes)
    assert list(looks(tmp_path / "cut")) == [0, 2][: 1 + cut // 4]
    assert run(tmp_path / "cut", resume=True, **changes).finished
    assert largest_difference(uninterrupted, tmp_path / "cut") == 0.0
    records = [
        json.loads((f / RunFiles.RUN).read_text()) for f in (uninterrupted, tmp_path / "cut")
    ]
    assert records[0]["best"] == records[1]["best"]
    assert records[0]["step"] == records[1]["step"]
    if "early_stop__patience" in more:
        assert records[0]["step"] == 2 < STEPS, "what does not move is not gone on with"


def test_killed_around_looks_it_leaves_the_same(warm: Any, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    log = folder / RunFiles.LOG
    for number, at in enumerate((0, 2, 4)):  # the look is told, and its checkpoint may not be there

        def told(at: int = at) -> bool:
            return log.is_file() and f'"step": {at},' in log.read_text()

        options = ["--resume"] * (number > 0)
        child = start(warm, folder, *options, run__checkpoint_every=1, **CHANGES)
        assert child.wait_until(told, interval=0.0005), child.err.read_text()
        child.kill()
        assert child.wait() in (-signal.SIGKILL, 0)
    assert run(folder, resume=True, run__checkpoint_every=1, **CHANGES).finished
    assert largest_difference(whole, folder) == 0.0
    assert looks(folder) == looks(whole)


def test_it_is_on_where_a_run_starts_from_trained_weights(tmp_path: Path) -> None:
    val, held = [{"kind": "retrieval"}], [{"kind": "retrieval", "split": "test"}]
    elsewhere = [{"kind": "retrieval", "data": SCENES}]
    trained = {"model": None, "init": {"from": "runs/there"}}
    assert recipe(tmp_path, **trained, evaluate=val).stops_early == EarlyStopSection()
    for off in (
        {"evaluate": val},
        {**trained, "evaluate": held},
        {**trained, "evaluate": elsewhere},
        {**trained, "evaluate": val, "early_stop": None},
        {"model": None, "init": {"from": "runs/there", "weights": False}, "evaluate": val},
    ):
        assert recipe(tmp_path, **off).stops_early is None
    assert recipe(tmp_path, evaluate=val, early_stop={}).stops_early == EarlyStopSection()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stop": {}}, "there is not an item of evaluate that reads val"),
        ({"early_stop": {"target": "last"}}, "target 'last' is not an item of evaluate that reads"),
        ({"early_stop": {"metric": "i2t_recal@1"}}, r"metric: 'i2t_recal@1'; did you mean"),
        ({"early_stop": {"retain": [{"kind": "retrieval"}]}}, "retrieval has no data"),
        ({"early_stop": {"retain": [{"kind": "retrieval", "data": SCENES}]}}, "the target's name"),
        ({"early_stop": {"patients": 3}}, r"early_stop\.patients: unknown key; did you mean"),
        ({"early_stop": "on"}, "early_stop"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    items: list[dict[str, Any]] = [{"kind": "retrieval"}]
    if "there is not" in message or "last" in message:
        items = [{"kind": "retrieval", "name": "last", "split": "test"}]
    with pytest.raises(RecipeError, match=message):
        recipe(tmp_path, evaluate=items, **changes)


def test_a_later_reading_of_a_test_split_is_noted_too(warm: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(folder, optim__samples_seen=16, evaluate=CHANGES["evaluate"]).finished
    before = json.loads((folder / RunFiles.RUN).read_text())["test_reads"]
    for overrides, more in (["evaluate.1.split=val"], []), ([], [("ptft evaluate", ["last"])]):
        child = warm.ptft("evaluate", folder, *overrides)
        assert child.wait() == 0, child.err.read_text()
        now = json.loads((folder / RunFiles.RUN).read_text())["test_reads"]
        assert [(read["by"], read["read"]) for read in now[len(before) :]] == more
