"""A whole comparison, at a tiny size, in its own processes."""

import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptft.compare import ComparisonOutcome, compare
from ptft.compare.arms import arm_recipe
from ptft.compare.cached_set import CachedSet, Room
from ptft.compare.candidates import answers_among
from ptft.compare.estimate import estimate
from ptft.compare.keys import Keys
from ptft.compare.metric import Measurement
from ptft.compare.passes import cut_short
from ptft.compare.target import Target
from ptft.compare.task import Task
from ptft.compare.validation import Validation
from ptft.compare.work import ArmJob
from ptft.data.sample import draw_samples
from ptft.errors import DataError, ModelError, RecipeError, UsageError
from ptft.preprocess.images import ImagePreprocess
from ptft.recipe import Comparison, MixtureData, ScenesData, dump_recipe
from ptft.speech import SILENT
from tests.support.comparisons import comparison, measured
from tests.support.warm import Child, Warm


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, ComparisonOutcome]:
    """A comparison, and what one process made of it."""
    folder = tmp_path_factory.mktemp("whole")
    wanted = comparison(folder, prune_at=[])  # its second trial is the better one in the end
    return wanted, compare(wanted, log=SILENT)


def test_a_comparison_goes_on_from_its_finished_cells_and_says_the_same_again(
    whole: tuple[Comparison, ComparisonOutcome],
) -> None:
    wanted, outcome = whole
    assert outcome.left == 0
    arms = {(cell.arm, cell.seed) for cell in outcome.cells}
    assert arms == {(arm, seed) for arm in ("zero_shot", "full", "full+wise") for seed in (0, 1)}
    assert len({cell.chosen["alpha"] for cell in outcome.cells if cell.arm == "full+wise"}) == 1
    first = measured(outcome.folder)
    full = [cell for cell in first if cell["arm"] == "full"]
    assert full[0]["chosen"] and full[0]["costs"]["flops"] > 0
    assert full[0]["costs"]["trainable_share"] == 1.0
    report = (outcome.folder / "report.md").read_text()
    assert "data requirement" in report and "8 labels" in report
    assert "optim.samples_seen: 16 cuts training to fewer passes" in report
    assert (outcome.folder / "report.html").read_text().count(
        '<svg viewBox="0 0 360 280" role="img"'
    ) == 2
    stable = report.partition("## What it took here")[0]

    [lost] = outcome.folder.glob("cells/full_8_1.*.json")
    [stays] = outcome.folder.glob("cells/zero_shot_8_0.*.json")
    kept = stays.stat().st_mtime_ns
    lost.unlink()
    again = compare(wanted, log=SILENT)
    assert measured(again.folder) == first
    assert stays.stat().st_mtime_ns == kept
    rows = [line for line in stable.splitlines() if line.startswith("| 8 |")]
    assert rows and all(row in (again.folder / "report.md").read_text() for row in rows)

    other = wanted.model_copy(update={"seed": 1})
    with pytest.raises(UsageError, match="holds another run or comparison"):
        compare(other, log=SILENT)


def test_workers_that_are_stopped_and_killed_leave_the_same_cells(
    whole: tuple[Comparison, ComparisonOutcome], tmp_path: Path
) -> None:
    """Each has a disk of its own, and one mirror is what they share."""
    wanted, alone = whole
    recipe = tmp_path / "comparison.yaml"
    recipe.write_text(dump_recipe(wanted))
    mirror = tmp_path / "mirror"

    def claims() -> list[Path]:
        return sorted(mirror.glob("claims/*.json"))

    with Warm(tmp_path) as warm:

        def worker(name: str) -> Child:
            places = (f"run.dir={tmp_path / name}", f"run.mirror={mirror}", "compare.jobs=1")
            return warm.ptft("compare", recipe, *places, "--worker")

        stopped = worker("stopped")
        assert stopped.wait_until(claims)
        stopped.kill(signal.SIGTERM)
        assert stopped.wait() == 143
        before = len(claims())
        killed = worker("killed")
        assert killed.wait_until(lambda: len(claims()) > before)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
    places = {"dir": str(tmp_path / "last"), "mirror": str(mirror)}
    last = wanted.model_copy(update={"run": wanted.run.model_copy(update=places)})
    outcome = compare(last, worker=True, log=SILENT)
    assert outcome.left == 0
    assert measured(outcome.folder) == measured(alone.folder)
    assert measured(mirror) == measured(alone.folder)
    report = (mirror / "report.md").read_text().partition("## What it took here")[0]
    assert report == (alone.folder / "report.md").read_text().partition("## What it took here")[0]
    newest = [name.stem.rpartition(".")[0] for name in claims()]
    assert len(newest) > len(set(newest)), "a job was claimed anew after its worker was killed"


def test_pictures_that_are_held_are_what_a_model_is_given(tmp_path: Path) -> None:
    wanted = comparison(tmp_path)
    target = Target(wanted)
    preprocess = ImagePreprocess(size=(24, 24))
    held = CachedSet(target.target.test, preprocess)
    for index in (0, 5, 0):
        assert held[index].captions == target.target.test[index].captions
        once = preprocess.pixels(target.target.test[index].image)
        assert np.array_equal(preprocess.pixels(held[index].image), once)
    assert held[5] is held[5]
    room = Room(3 * 24 * 24 * 4)  # three pictures, as Pillow holds them, of both sets together
    sets = [CachedSet(target.target.test, preprocess, room) for _ in range(2)]
    read = [(one, index) for one in sets for index in (0, 1)]
    pictures = [one[index] for one, index in read]
    assert [one[index] is was for (one, index), was in zip(read, pictures, strict=True)] == [
        *(True, True, True, False)  # what does not fit is read anew, and is the same
    ]
    for (one, index), was in zip(read, pictures, strict=True):
        assert np.array_equal(np.asarray(one[index].image), np.asarray(was.image))
    assert room.left == 0


def test_labels_serve_twice_where_val_has_few(tmp_path: Path) -> None:
    """Arms are asked what of ``train`` they did not learn from, the same but for that."""
    wanted = comparison(tmp_path, seeds=3, val_most=24)
    target = Target(wanted)
    first = set(target.unlearned(8, 0).indices.tolist())
    learned = set(draw_samples(target.train, 0, limit=8).tolist())
    for seed in range(3):
        own = set(draw_samples(target.train, seed, limit=8).tolist())
        more = set(target.unlearned(8, seed).indices.tolist())
        assert more and not more & own and more ^ first <= own | learned
        assert len(more) <= 24 - len(target.questions) == 8
        earlier = target.val(8, max(0, seed - 1)).indices
        assert set(earlier) <= set(target.val(8, seed).indices)
    assert len(target.val(8, 0)) == 8 < len(target.val(8, 2))
    assert len(target.unlearned(32, 0)) == 0  # all is learned from
    told = target.questions_told
    assert told is not None and "by what of 8 of train an arm did not learn from. That" in told
    few = Target(comparison(tmp_path, seeds=3, val_most=5))
    assert len(few.questions) == len(few.val(8, 2)) == 5 and len(few.unlearned(8, 0)) == 0


@pytest.mark.parametrize("key", ["group", "unlabelled"])
def test_nothing_is_asked_of_what_may_have_been_seen_otherwise(tmp_path: Path, key: str) -> None:
    wanted = comparison(tmp_path, val_most=24)
    given = {"group": "patient", "unlabelled": wanted.data}[key]
    target = Target(wanted)
    assert len(target.unlearned(8, 0)) > 0
    target.comparison = wanted.model_copy(
        update={"data": wanted.data.model_copy(update={key: given})}
    )
    assert len(target.unlearned(8, 0)) == 0


def test_every_budget_is_asked_the_same_and_chooses_by_no_more_than_it_has(tmp_path: Path) -> None:
    """An arm at a budget owes nothing to labels beyond it, but for being told from the others."""
    wanted = comparison(tmp_path, val_most=12, budgets=[4, 8, 16])
    target = Target(wanted)
    assert len(target.questions) == 12 < len(target.target.val)
    assert target.questions.indices.tolist() == Target(wanted).questions.indices.tolist()
    assert [len(target.val(budget, 0)) for budget in (4, 8, 16)] == [4, 8, 12]
    assert set(target.val(4, 0).indices) < set(target.questions.indices)
    told = target.questions_told
    assert told is not None and "the same 12 of val. That" in told and "labels at 4, 8;" in told
    assert Target(comparison(tmp_path, val_most=8, budgets=[8, 16])).questions_told is None
    task = Task(wanted, wanted.compare.arms[0], 4, tmp_path / "run")
    validation = Validation(task, lambda: task.start, 0)
    assert isinstance(validation.own, Measurement) and isinstance(validation.val, Measurement)
    assert len(validation.own.hits) == 4 < len(validation.val.hits) == 12
    [moved] = [answers_among(validation.own, len(target.target.test) / 4)]
    assert validation.figure == pytest.approx(sum(moved) / 4 if moved else validation.own.value)


def test_replay_mixes_in_what_is_to_be_retained(tmp_path: Path) -> None:
    wanted = comparison(tmp_path, arms=[{"kind": "replay"}], replay=2.0)
    (arm,) = wanted.compare.arms
    whole = arm_recipe(wanted, arm, budget=8, samples=8, seed=1, chosen={}, folder="x")
    found = whole.data
    assert isinstance(found, MixtureData)
    target, kept = found.parts
    assert (target.data.limit, target.weight, kept.weight) == (8, 1.0, 2.0)
    assert whole.optim.samples_seen == 3 * 16  # two passes of the target's
    assert isinstance(kept.data, ScenesData) and kept.data.style == "line"


def test_time_that_is_up_leaves_cells_for_later(tmp_path: Path) -> None:
    outcome = compare(comparison(tmp_path), max_minutes=0.0, log=SILENT)
    assert outcome.left == 4 and not outcome.cells


def test_an_estimate_counts_every_job(tmp_path: Path) -> None:
    wanted = comparison(tmp_path)
    start, full = wanted.compare.arms
    assert estimate(wanted, []) == []
    first, learns, again = estimate(wanted, [(start, 8), (full, 8), (start, 8)])
    assert 0.0 < first == again < learns


def test_of_a_comparison_that_has_grown_what_is_new_is_estimated(tmp_path: Path) -> None:
    wanted = comparison(tmp_path, trials=3)
    start, full = wanted.compare.arms
    keys = Keys(wanted)
    job = ArmJob(full, 8, keys.of(full, 8))
    done = job.cells(2)
    assert job.left(2, ()) == 1.0  # three trials and another seed
    assert job.left(2, done) == 0.0
    assert job.left(3, done) == pytest.approx(1 / 5)
    assert job.left(3, done[1:]) == pytest.approx((2 + 2) / 5)  # its trials are to be run
    assert ArmJob(start, 8, keys.of(start, 8)).left(2, ()) == 1.0


def test_trainings_that_are_cut_short_are_told(tmp_path: Path) -> None:
    wanted = comparison(tmp_path, budgets=[2, 4, 8], samples_per_label=4)
    said = cut_short(wanted, lambda budget: budget)
    assert said is not None and "than the 4 of compare.samples_per_label: 2.0 at 8." in said
    assert cut_short(wanted, lambda budget: budget // 2) is None
    optim = wanted.optim.model_copy(update={"samples_seen": None, "epochs": 3.5})
    said = cut_short(wanted.model_copy(update={"optim": optim}), lambda budget: budget)
    assert said is not None and "optim.epochs: 3.5 cuts" in said
    assert "3.5 at 2, 3.5 at 4, 3.5 at 8." in said


def test_two_arms_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two are named full; give each a name"):
        comparison(tmp_path, arms=[{"kind": "full"}, {"kind": "full"}])


def test_a_head_that_begins_as_a_probe_is_an_arm_and_not_the_comparison(tmp_path: Path) -> None:
    values = comparison(tmp_path, metric=None).model_dump(mode="json", by_alias=True)
    values["objective"], values["evaluate"] = (
        {"kind": "classify", "head": "probe"},
        [{"kind": "classify"}],
    )
    with pytest.raises(ValueError, match=r"objective\.head: 'probe'.*allowed: prompts, random"):
        Comparison.model_validate(values)


def test_an_arm_that_explodes_is_named(tmp_path: Path) -> None:
    wanted = comparison(
        tmp_path, arms=[{"kind": "zero_shot"}, {"kind": "full", "set": {"optim.lr": 1e30}}]
    )
    with pytest.raises(ModelError, match=r"^full at 8: .* the weights have diverged"):
        compare(wanted, log=SILENT)


def test_a_budget_larger_than_the_data_is_an_error(tmp_path: Path) -> None:
    wanted = comparison(tmp_path, budgets=[8, 64])
    with pytest.raises(RecipeError, match=r"compare\.budgets: 64; allowed: at most 32"):
        compare(wanted, log=SILENT)


def test_an_arm_that_sets_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    wanted = comparison(tmp_path, arms=[{"kind": "full", "set": {"optim.lrr": 1}}])
    with pytest.raises(RecipeError, match=r"optim\.lrr"):
        compare(wanted, log=SILENT)


def test_a_retained_set_that_shares_pictures_with_the_target_is_an_error(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "other")):
        _pictures_of_classes(tmp_path / split, seed=seed)
    folder, other = (
        {
            "kind": "folder",
            "train": str(tmp_path / a),
            "val": str(tmp_path / b),
            "test": str(tmp_path / b),
        }
        for a, b in (("train", "other"), ("other", "train"))
    )
    zero_shot = {"kind": "zero_shot", "name": "before", "data": other}
    wanted = comparison(tmp_path, retain=[zero_shot], metric=None, budgets=[2])
    values = wanted.model_dump(mode="json", by_alias=True)
    values["data"], values["objective"] = folder, {"kind": "classify"}
    values["evaluate"] = [{"kind": "classify"}]
    with pytest.raises(DataError, match=r"compare\.retain\.before\.data\.val: shares . pictures"):
        compare(Comparison.model_validate(values), log=SILENT)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dog", "emu"], "data.train: class 'emu' has no picture"),
        (["cat", "dgo"], "'dog'.*did you mean 'dgo'"),
    ],
)
def test_classes_and_labels_that_do_not_meet_are_an_error(
    classes: list[str], message: str, tmp_path: Path
) -> None:
    """Before anything is trained, with the name that has no counterpart."""
    pictures = str(_pictures_of_classes(tmp_path / "pictures"))
    values = comparison(tmp_path, retain=[], metric=None, budgets=[2]).model_dump(
        mode="json", by_alias=True
    )
    values["data"] = {"kind": "folder", "classes": classes}
    values["data"] |= dict.fromkeys(("train", "val", "test"), pictures)
    values["objective"], values["evaluate"] = {"kind": "classify"}, [{"kind": "classify"}]
    with pytest.raises(DataError, match=message):
        compare(Comparison.model_validate(values), log=SILENT)
    assert not list(tmp_path.rglob("cells"))


def _pictures_of_classes(folder: Path, *, seed: int = 0) -> Path:
    """Four pictures of noise in each of ``cat`` and ``dog``."""
    rng = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            picture.save(folder / name / f"{number}.png")
    return folder
