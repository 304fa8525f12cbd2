"""Every kind of arm on a labelled set, one task each, in this process."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ptft.compare.arms import arm_recipe
from ptft.compare.margins import answers_by_margin
from ptft.compare.metric import TextEmbeddings, default_metric, measure_metric, retained_metric
from ptft.compare.results import Cells, Costs
from ptft.compare.search import Trial, TrialSearch
from ptft.compare.target import Target
from ptft.compare.task import Task, TrainedArm
from ptft.compare.validation import Validation
from ptft.data import open_split, open_val
from ptft.evaluate import evaluate
from ptft.recipe import (
    ArmSection,
    ClassifyObjective,
    Comparison,
    FolderData,
    RetrievalEvaluation,
    ScenesData,
    TipAdapterAdapt,
    ZeroShotEvaluation,
    dump_recipe,
)
from ptft.recipe.comparison import ArmKind
from ptft.recipe.load import load_comparison
from tests.support.comparisons import write_colours
from tests.support.shards import picture
from tests.support.tiny import arch_section, build, towers_section

KINDS = (
    "zero_shot",
    "scratch",
    "probe",
    "full",
    "lp_ft",
    "flyp",
    "lora",
    "l2_sp",
    "projection",
    "tip_adapter",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and green pictures, four of each in each split, and an untrained model."""
    return write_colours(tmp_path_factory.mktemp("classes"))


def comparison(folder: Path) -> Comparison:
    values: dict[str, Any] = {
        "name": "colours",
        "init": {"from": str(folder / "base")},
        "data": {"kind": "folder", **{s: str(folder / s) for s in ("train", "val", "test")}},
        "objective": {"kind": "classify", "templates": ["a {} picture.", "{}"]},
        "optim": {"samples_seen": 64, "global_batch": 8, "lr": 1e-4, "precision": "fp32"},
        "evaluate": [{"kind": "classify"}],
        "run": {"device": "cpu"},
        "compare": {
            "arms": [{"kind": kind} for kind in KINDS],
            "budgets": [2],
            "seeds": 1,
            "trials": 1,
            "samples_per_label": 16,
            "wise": [0.5],
        },
    }
    (folder / "comparison.yaml").write_text(json.dumps(values))
    return load_comparison(folder / "comparison.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_an_arm_leaves_its_cells(kind: str, folder: Path, tmp_path: Path) -> None:
    wanted = comparison(folder)
    arm = wanted.compare.arms[KINDS.index(kind)]
    Task(wanted, arm, 2, tmp_path).run()
    cells = {cell.arm: cell for cell in Cells(tmp_path, wanted).all()}
    mixed = set() if kind in ("zero_shot", "scratch", "tip_adapter") else {f"{kind}+wise"}
    assert cells.keys() == {kind} | mixed
    cell = cells[kind]
    assert len(cell.test_hits) == len(cell.val_hits) == 8  # all of val, whatever the budget
    assert cell.test == cell.test_hits.count("1") / 8
    assert [answer > 0.5 for answer in cell.val_asked] == [hit == "1" for hit in cell.val_hits]
    assert (cell.costs.flops > 0) == (kind != "zero_shot")
    if kind in ("probe", "lora"):
        assert 0 < cell.costs.trainable_share < 0.5


def test_answers_of_both_kinds_of_labels_are_read_together(folder: Path, tmp_path: Path) -> None:
    wanted = comparison(folder)
    section = wanted.compare.model_copy(update={"seeds": 2})
    wanted = wanted.model_copy(update={"compare": section})
    task = Task(wanted, section.arms[0], 2, tmp_path)
    task.run()
    _, second = Cells(tmp_path, wanted).all()
    validation = Validation(task, lambda: task.start, 1)
    assert validation.unlearned is not None and len(second.train_of) == len(second.train_hits) > 0
    together = answers_by_margin([validation.val, validation.unlearned])
    assert [second.val_asked, second.train_hits] == together
    assert second.val_asked != answers_by_margin([validation.val])[0]


def test_a_question_is_one_whatever_cannot_be_read_beside_it(tmp_path: Path) -> None:
    """Seeds ask of the same ``val``: without their identities four pictures would be twelve."""
    folder = write_colours(tmp_path / "colours")
    (folder / "val" / "red" / "1.png").write_bytes(b"no picture")
    wanted = comparison(folder)
    section = wanted.compare.model_copy(update={"seeds": 3, "budgets": [4]})
    data = wanted.data.model_copy(update={"max_skipped": 0.5})
    wanted = wanted.model_copy(update={"compare": section, "data": data})
    Task(wanted, section.arms[0], 4, tmp_path / "run").run()
    for cell in Cells(tmp_path / "run", wanted).all():
        assert cell.val_of == [0, 1, 2, 3, 4, 6, 7]  # green first, and of red all but the second
        assert len(cell.val_of) == len(cell.val_hits) == len(cell.val_asked)


def test_captions_that_the_model_knows_give_the_same_figures(tmp_path: Path) -> None:
    """Of two sets with captions in common the second embeds only its own."""
    model = build(towers_section())
    item = RetrievalEvaluation()
    sets = [open_split(ScenesData(size=32, val=n, test=16, seed=0), "val", seed=0) for n in (8, 16)]
    known: TextEmbeddings = {}
    for samples in sets:
        alone = measure_metric(model, item, samples, "i2t_recall@1", {}).scores()
        shared = measure_metric(model, item, samples, "i2t_recall@1", known).scores()
        torch.testing.assert_close(shared[0], alone[0], atol=1e-5, rtol=0)
        assert torch.equal(shared[1], alone[1])
    texts = [text for samples in sets for i in range(len(samples)) for text in samples.captions(i)]
    assert list(known) == list(dict.fromkeys(texts)) and len(known) < len(texts)


def test_what_is_retained_of_a_retrieval_counts_both_ways() -> None:
    model = build(towers_section())
    item, data = RetrievalEvaluation(ks=[10, 5]), ScenesData()
    found = default_metric(item, data), retained_metric(item, data, "key")
    assert found == ("i2t_recall@5", "recall@5")
    samples = open_split(ScenesData(size=32, val=32, test=16, seed=0), "val", seed=0)
    ways = [f"{way}recall@5" for way in ("i2t_", "t2i_", "")]
    to_text, to_image, both = [measure_metric(model, item, samples, way) for way in ways]
    assert both.hits.tolist() == [*to_text.hits.tolist(), *to_image.hits.tolist()]
    [figures] = evaluate(
        model, [item], ScenesData(size=32, val=32, test=16, seed=0), seed=0, workers=0
    ).values()
    assert (to_text.value, to_image.value) == (figures["i2t_recall@5"], figures["t2i_recall@5"])


def test_of_mixes_that_are_told_apart_by_nothing_the_most_trained_is_taken(
    folder: Path, tmp_path: Path
) -> None:
    """Here all of them: the arm learned nothing."""
    wanted = comparison(folder)
    task = Task(wanted, wanted.compare.arms[KINDS.index("full")], 2, tmp_path)
    task.mix_with_start(TrainedArm(Validation(task, lambda: task.start, 0), {}, Costs()), 0)
    [cell] = Cells(tmp_path, wanted).all()
    assert (cell.arm, cell.chosen) == ("full+wise", {"alpha": 1.0})


def test_what_keeps_an_arm_gentle_is_set_by_key(folder: Path, tmp_path: Path) -> None:
    """Smoothed labels, an average of weights, rates by layer, the start as teacher, on LP-FT."""
    wanted = comparison(folder)
    arm = ArmSection(
        kind="lp_ft",
        name="gentle",
        set={
            "objective.label_smoothing": 0.1,
            "optim.ema": 0.5,
            "optim.layer_decay": 0.7,
            "distill.from": str(folder / "base"),
        },
    )
    recipe = arm_recipe(wanted, arm, budget=2, samples=4, seed=0, chosen={}, folder="x")
    assert isinstance(recipe.objective, ClassifyObjective)
    assert (recipe.objective.head, recipe.objective.label_smoothing) == ("probe", 0.1)
    assert (recipe.optim.ema, recipe.optim.layer_decay) == (0.5, 0.7)
    assert recipe.distill is not None and recipe.distill.from_ == str(folder / "base")
    section = wanted.compare.model_copy(update={"arms": [arm]})
    wanted = wanted.model_copy(update={"compare": section})
    Task(wanted, arm, 2, tmp_path).run()
    assert {cell.arm for cell in Cells(tmp_path, wanted).all()} == {"gentle", "gentle+wise"}


def test_a_cache_chooses_on_what_the_others_choose_on(folder: Path) -> None:
    wanted = comparison(folder)
    recipe = arm_recipe(
        wanted, ArmSection(kind="tip_adapter"), budget=2, samples=4, seed=3, chosen={}, folder="x"
    )
    assert isinstance(recipe.adapt, TipAdapterAdapt)
    val = open_val(recipe.data, recipe.adapt.val_limit, seed=recipe.seed)
    ours = Target(wanted).val(2, 3)  # with what earlier seeds drew
    assert len(val) == 4
    assert {val.name(i) for i in range(4)} <= {ours.name(i) for i in range(len(ours))}


@pytest.mark.parametrize("rate", [1e-9, 1e6, 1e30])
@pytest.mark.parametrize("kind", ["full", "flyp"])
def test_a_trial_that_goes_wrong_is_given_up_and_moves_nothing(
    kind: ArmKind, rate: float, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that learns nothing, and one that explodes: the arm as it stands is taken, as it was."""
    wanted = comparison(folder)
    given_up: list[Trial] = []
    give_up = TrialSearch.give_up
    monkeypatch.setattr(
        TrialSearch, "give_up", lambda self, trial: (given_up.append(trial), give_up(self, trial))
    )
    arm = ArmSection(kind=kind, set={"optim.lr": 1e-2}, search={"optim.lr": [rate]})
    cells = []
    for trials in (1, 2):
        compare = wanted.compare.model_copy(update={"trials": trials, "wise": [], "arms": [arm]})
        one = wanted.model_copy(update={"compare": compare})
        Task(one, arm, 2, tmp_path / str(trials)).run()
        cells += Cells(tmp_path / str(trials), one).all()
    assert [trial.values for trial in given_up] == [{"optim.lr": rate}]
    alone, searched = cells
    assert searched.costs.search_cpu_seconds > searched.costs.cpu_seconds
    assert searched.trials[1].val is None and len(alone.trials) == 1
    assert replace(searched, costs=alone.costs, trials=alone.trials) == alone


def test_a_picture_without_a_caption_is_no_query_as_evaluate_has_it(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"{i}.png", "kind": "a", "text": f"t {i}" if i % 3 else ""} for i in range(9)
    ]
    for number, row in enumerate(rows):
        (tmp_path / str(row["file_name"])).write_bytes(picture(20 * number))
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = FolderData(val=str(tmp_path), label="kind")
    item = RetrievalEvaluation(ks=[1, 3], data=section)
    model = build(arch_section())
    figures = evaluate(model, [item], section, seed=0, workers=0)["retrieval"]
    assert figures["images_without_caption"] == 3 and figures["images"] == 9
    samples = open_split(section, "val")
    for metric in ("i2t_recall@1", "i2t_recall@3", "t2i_recall@1", "t2i_recall@3"):
        found = measure_metric(model, item, samples, metric)
        assert found.value == pytest.approx(figures[metric], abs=1e-12)
        scores, own = found.scores()
        assert len(found.hits) == 6 and scores.shape == own.shape
        assert bool(own.any(dim=1).all())
    both = measure_metric(model, item, samples, "recall@1")
    mean = (figures["i2t_recall@1"] + figures["t2i_recall@1"]) / 2
    assert both.value == pytest.approx(mean, abs=1e-12)


def test_a_retained_sets_splits_have_their_own_classes(folder: Path, tmp_path: Path) -> None:
    """A set without a training split numbers each of its splits by the labels that occur there."""
    rng = np.random.default_rng(1)
    for split, names in (("val", ("cyan", "red")), ("test", ("blue", "cyan", "red"))):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(6):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    section = {"kind": "folder", "val": str(tmp_path / "val"), "test": str(tmp_path / "test")}
    values = comparison(folder).model_dump(mode="json", by_alias=True)
    values["compare"]["retain"] = [{"kind": "zero_shot", "name": "kept", "data": section}]
    target = Target(Comparison.model_validate(values))
    model = build(towers_section())
    for split in ("val", "test"):
        item = ZeroShotEvaluation(name="kept", split=split, data=FolderData(**section))
        figures = evaluate(model, [item], FolderData(**section), seed=0, workers=0)
        assert target.retained_measured(model, split)["kept"].value == figures["kept"]["top1"]


def test_peak_memory_does_not_depend_on_what_ran_before(folder: Path, tmp_path: Path) -> None:
    """In a process that has held much more before, as a job's has after its first evaluation."""
    wanted = comparison(folder)
    arm = wanted.compare.arms[KINDS.index("full")]
    recipe = arm_recipe(
        wanted, arm, budget=2, samples=4, seed=0, chosen={}, folder=str(tmp_path / "run")
    )
    words = [str(tmp_path / "recipe.yaml"), str(64 * 2**20)]
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    code = (
        "import sys, numpy; from ptft.recipe import load_recipe; "
        "from ptft.compare.peak import peak_bytes, training_peak\n"
        "recipe = load_recipe(sys.argv[1])\n"
        "for held in (0, int(sys.argv[2])):\n"
        "    before = peak_bytes(); numpy.ones(held, numpy.uint8).sum()\n"
        "    print(training_peak([recipe]), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, after = map(int, done.stdout.split())
    weights = sum(one.numel() * 4 for one in build(towers_section()).parameters())
    assert first > weights and after > 0
    assert after < first + 32 * 2**20  # the 64 MB that were held before are not in it
