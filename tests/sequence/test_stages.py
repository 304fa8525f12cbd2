"""Sequences of domains: each stage from the one before, guarded, killed, resumed and told."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from ptft.artifact import RunFiles
from ptft.errors import RecipeError, TrainingError, UsageError
from ptft.model import load_model
from ptft.model.average import interpolate
from ptft.recipe import (
    EarlyStopSection,
    MixtureData,
    StagedRecipe,
    check_recipe,
    dump_recipe,
    load_recipe,
    stage_recipe,
)
from ptft.sequence import run_recipe, summary, table
from ptft.speech import SILENT
from ptft.train import exit_code
from tests.support.killed import start, warm
from tests.support.runs import BATCH, interrupt, largest_difference, recipe, run

__all__ = ["warm"]  # the fixture

STEPS = 4  # of a stage


def scenes(style: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "scenes",
        "size": 32,
        "train": 80,
        "val": 16,
        "test": 16,
        "style": style,
        **more,
    }


STAGES: list[dict[str, Any]] = [
    {"name": "line", "data": scenes("line")},
    {"name": "shaded", "data": scenes("shaded"), "set": {"optim.lr": 3e-4}},
]


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that sequences start from."""
    folder = tmp_path_factory.mktemp("begin") / "run"
    assert run(folder, optim__samples_seen=2 * BATCH).finished
    return folder


def changes(begin: Path, **more: Any) -> dict[str, Any]:
    return {
        "model": None,
        "init": {"from": str(begin)},
        "data": None,
        "optim__samples_seen": STEPS * BATCH,
        "run__checkpoint_every": 1,
        "run__neighbours": False,
        "stages": STAGES,
        **more,
    }


def sequence(folder: Path, begin: Path, **more: Any) -> StagedRecipe:
    made = recipe(folder, **changes(begin, **more))
    assert isinstance(made, StagedRecipe)
    return made


@pytest.fixture(scope="module")
def whole(begin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted sequence with the default guard."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder, **changes(begin)).finished
    return folder


def rows(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((folder / RunFiles.STAGES).read_text())["rows"]
    return found


def test_without_a_guard_it_is_one_run_after_another(begin: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "run", **changes(begin, guard=None))
    assert result.finished
    source = str(begin)
    for number, stage in enumerate(STAGES):
        more = {"optim__lr": 3e-4} if number else {}
        values = changes(begin, data=stage["data"], init={"from": source}, early_stop=None, **more)
        del values["stages"]
        by_hand = tmp_path / f"alone{number}"
        alone = recipe(by_hand, **values, evaluate=[{"kind": "retrieval"}])
        alone = alone.model_copy(update={"early_stop": EarlyStopSection()})
        assert run_recipe(alone, log=SILENT).finished
        assert (
            largest_difference(by_hand, tmp_path / "run" / f"{number + 1}-{stage['name']}") == 0.0
        )
        source = str(by_hand)
    assert largest_difference(by_hand, tmp_path / "run") == 0.0
    again = load_recipe(tmp_path / "run" / RunFiles.RECIPE)
    assert again == sequence(tmp_path / "run", begin, guard=None)
    assert dump_recipe(again) == (tmp_path / "run" / RunFiles.RECIPE).read_text()


def test_what_a_sequence_leaves(whole: Path) -> None:
    record = json.loads((whole / RunFiles.RUN).read_text())
    assert record["status"] == "finished"
    assert record["weights_digest"]
    found = json.loads((whole / RunFiles.STAGES).read_text())
    assert list(found["rows"]) == ["start", "line", "shaded"]
    assert all(list(row) == ["line", "shaded"] for row in found["rows"].values())
    assert json.loads((whole / RunFiles.METRICS).read_text()) == found["metrics"]["shaded"]
    text = (whole / RunFiles.STAGES_TABLE).read_text()
    assert text.startswith("| after (i2t_recall@1) | line | shaded |\n")
    assert f"| line | **{found['rows']['line']['line']:.1%}** |" in text
    model = load_model(whole / "2-shaded")
    for name, tensor in load_model(whole).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert run(whole, resume=True, **_same(whole)).finished, "there is nothing to do"


def _same(folder: Path) -> dict[str, Any]:
    values = load_recipe(folder / RunFiles.RECIPE)
    return changes(Path(values.init.from_ if values.init else ""))


def test_killed_at_any_moment_a_sequence_goes_on_to_the_same_weights(
    warm: Any, begin: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first, second = folder / "1-line", folder / "2-shaded"
    moments = (
        lambda: (folder / RunFiles.RUN).is_file(),
        lambda: (first / RunFiles.RECIPE).is_file(),  # the stage's run.json may not be there
        lambda: list((first / RunFiles.CHECKPOINTS).glob(".step-*2.partial/*")),
        lambda: (first / RunFiles.FINAL).is_dir(),
        lambda: (second / RunFiles.CHECKPOINTS / "step-00000003").is_dir(),
    )
    for number, moment in enumerate(moments):
        child = start(warm, folder, *(["--resume"] * (number > 0)), **changes(begin))
        assert child.wait_until(moment, interval=0.0005), child.err.read_text()
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert run(folder, resume=True, **changes(begin)).finished
    assert largest_difference(whole, folder) == 0.0
    assert rows(folder) == rows(whole)


@pytest.mark.parametrize("step", [2, STEPS])
def test_a_signal_stops_within_the_stage_and_before_the_next(
    begin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, step, **changes(begin, guard=None))
    assert json.loads((folder / RunFiles.RUN).read_text())["status"] == "stopped"
    assert not (folder / "2-shaded").exists()
    with pytest.raises(UsageError, match="something is there already"):
        run(folder, **changes(begin, guard=None))
    with pytest.raises(UsageError, match=r"another recipe: guard\."):
        run(folder, resume=True, **changes(begin, guard={"pull": 0.1}))
    result = run(folder, resume=True, **changes(begin, guard=None))
    assert (result.finished, exit_code(result)) == (True, 0)
    assert list(rows(folder)) == ["start", "line", "shaded"]


def test_a_stage_that_fails_fails_the_sequence(begin: Path, tmp_path: Path) -> None:
    wrong = {"optim.lr": 1e30, "optim.clip_grad_norm": None, "optim.warmup": 0.0}
    folder, stages = tmp_path / "run", [{**STAGES[0], "set": wrong}, STAGES[1]]
    with pytest.raises(TrainingError, match="step"):
        run(folder, **changes(begin, stages=stages, guard=None, early_stop=None))
    record = json.loads((folder / RunFiles.RUN).read_text())
    assert record["status"] == "failed"
    assert "bad_batch.json" in record["error"]


def test_a_stage_is_mixed_with_its_start(begin: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "run", **changes(begin, guard={"mix": 0.25, "replay": 0.0})).finished
    source = load_model(begin)
    for number, name in enumerate(("line", "shaded")):
        place = tmp_path / "run" / f"{number + 1}-{name}"
        wanted = interpolate(source, load_model(place / RunFiles.FINAL), 0.25).state_dict()
        source = load_model(place / "mixed")
        for key, tensor in source.state_dict().items():
            assert torch.equal(tensor, wanted[key])
    final = load_model(tmp_path / "run").state_dict()
    assert all(torch.equal(final[key], tensor) for key, tensor in source.state_dict().items())


def test_what_a_guard_makes_of_a_stage(begin: Path, tmp_path: Path) -> None:
    guard = {"replay": 0.25, "known": [scenes("shaded", train=40)], "distill": 0.5, "pull": 0.1}
    made = sequence(tmp_path, begin, guard=guard)
    first = stage_recipe(made, 0, start=None, folder="there/1-line")
    second = stage_recipe(made, 1, start="there/1-line/final", folder="there/2-shaded")
    assert isinstance(first.data, MixtureData)
    assert isinstance(second.data, MixtureData)
    for staged, weights in ((first, [0.75, 0.25]), (second, [0.75, 0.125, 0.125])):
        assert isinstance(staged.data, MixtureData)
        given = [part.weight for part in staged.data.parts]
        assert [weight / sum(given) for weight in given] == pytest.approx(weights)
        assert staged.optim.samples_seen == -(-STEPS * BATCH * 4 // 3), (
            "its own as often as without"
        )
        assert staged.distill is not None
        assert staged.regularise is not None
        assert (staged.distill.weight, staged.regularise.start) == (0.5, 0.1)
        assert staged.stops_early is not None
        assert staged.early_stop_target is not None
        assert staged.early_stop_target.data == made.stages[staged is second].data
    assert second.data.parts[0].data == made.stages[1].data
    assert second.data.parts[2].data == made.stages[0].data
    assert first.init is not None
    assert second.init is not None
    assert second.distill is not None
    assert (first.init.from_, second.init.from_) == (str(begin), "there/1-line/final")
    assert second.distill.from_ == "there/1-line/final"
    assert (first.optim.lr, second.optim.lr) == (1e-3, 3e-4)


def test_a_held_out_part_of_the_stage_is_watched(begin: Path, tmp_path: Path) -> None:
    table = {"kind": "table", "train": "t.parquet", "hold_out": 0.2}
    made = sequence(tmp_path, begin, stages=[{"name": "own", "data": table}])
    staged = stage_recipe(made, 0, start=None, folder="there")
    assert [(item.name, item.split) for item in staged.evaluate] == [("own", "val")]
    assert staged.stops_early is not None


def test_epochs_are_of_the_stages_own_samples(begin: Path, tmp_path: Path) -> None:
    made = sequence(tmp_path, begin, optim__samples_seen=None, optim__epochs=1.5)
    second = stage_recipe(made, 1, start="x", folder="y", samples=80)
    assert (second.optim.samples_seen, second.optim.epochs) == (240, None)
    plain = sequence(tmp_path, begin, optim__samples_seen=None, optim__epochs=1.5, guard=None)
    assert stage_recipe(plain, 1, start="x", folder="y").optim.epochs == 1.5


def test_a_mixture_is_replayed_by_its_parts(begin: Path, tmp_path: Path) -> None:
    parts = [{"data": scenes("line"), "weight": 3.0}, {"data": scenes("shaded"), "name": "b"}]
    stages = [{"name": "both", "data": {"kind": "mixture", "parts": parts}}, STAGES[1]]
    made = sequence(tmp_path, begin, stages=stages, guard={"replay": 0.5})
    data = stage_recipe(made, 1, start="x", folder="y").data
    assert isinstance(data, MixtureData)
    given = [part.weight for part in data.parts]
    assert [weight / sum(given) for weight in given] == pytest.approx([0.5, 0.375, 0.125])


def test_the_summary_by_hand(begin: Path, tmp_path: Path) -> None:
    stages = [{"name": name, "data": scenes("line")} for name in "abc"]
    known = [{"kind": "retrieval", "name": "known", "data": scenes("shaded")}]
    made = sequence(tmp_path, begin, stages=stages, evaluate=known)
    found = {
        "start": {"a": 0.1, "b": 0.3, "c": 0.5, "known": 0.9},
        "a": {"a": 0.8, "b": 0.2, "c": 0.4, "known": 0.8},
        "b": {"a": 0.7, "b": 0.6, "c": 0.2, "known": 0.7},
        "c": {"a": 0.5, "b": 0.5, "c": 0.9, "known": 0.6},
    }
    # transfer: b after a is 0.2; c after a and b is 0.3 on average
    assert summary(made, found) == pytest.approx(
        {
            "last": (0.5 + 0.5 + 0.9) / 3,
            "average": (0.8 + 0.7 + 0.5 + 0.2 + 0.6 + 0.5 + 0.4 + 0.2 + 0.9) / 9,
            "zero_shot": 0.4,
            "transfer": 0.25,
            "transfer_loss": 0.15,
            "backward_loss": (0.3 + 0.1) / 2,
            "known_loss": 0.3,
        }
    )
    assert table(made, found).splitlines()[3] == "| a | **80.0%** | 20.0% | 40.0% | 80.0% |"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"stages": [STAGES[0], STAGES[0]]}, "two are named line"),
        ({"stages": [STAGES[0], {"name": "b"}]}, r"stages\.1\.data: missing"),
        ({"stages": [{"name": "b"}]}, r"stages\.0\.data: missing"),
        ({"stages": []}, "stages"),
        ({"stages": [{**STAGES[0], "date": 1}]}, r"stages\.0\.date: unknown key; did you mean"),
        ({"evaluate": [{"kind": "retrieval", "name": "line"}]}, "two are named line"),
        ({"objective__kind": "classify"}, "whose head ends with its stage"),
        ({"metric": "top1"}, "metric: 'top1': not of line"),
        ({"guard": {"reply": 0.5}}, r"guard\.reply: unknown key; did you mean 'replay'"),
        ({"guard": {"replay": 1.0}}, r"guard\.replay: 1\.0"),
        ({"guard": {"mix": 0.0}}, r"guard\.mix: 0\.0"),
    ],
)
def test_sequences_that_make_no_sense_are_refused(
    begin: Path, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        sequence(tmp_path, begin, **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"stages": [{**STAGES[0], "set": {"optim.lrr": 1}}]},
            r"stages\.line: optim\.lrr: unknown",
        ),
        (
            {"stages": [STAGES[0], {"name": "b", "data": {"kind": "folder", "train": "nowhere"}}]},
            r"stages\.b\.data\.train: 'nowhere': no such file",
        ),
        (
            {"guard": {"known": [{"kind": "folder", "train": "nowhere"}]}},
            r"guard\.known\.0\.train: 'nowhere': no such file",
        ),
    ],
)
def test_what_only_a_check_finds(
    begin: Path, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_recipe(sequence(tmp_path, begin, **more))
