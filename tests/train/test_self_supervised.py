"""Two views of each picture and no label: the loss by a loop in float64, and a run that goes on."""

import math
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from ptft.artifact import RunFiles, read_json
from ptft.data import open_split
from ptft.data.checks.check import check_splits
from ptft.data.sources.two_views import TwoViews
from ptft.errors import RecipeError
from ptft.model import load_model
from ptft.objective import views_loss
from ptft.recipe import ScenesData, SelfSupervisedObjective
from ptft.recipe.labels import learned_data
from ptft.speech import SILENT
from ptft.train import train
from tests.support.recipe_values import problems
from tests.support.runs import interrupt, largest_difference, recipe, run, weights
from tests.support.shards import picture, write_tar

SSL = {
    "objective": {"kind": "self_supervised"},
    "augment": {"crop_scale": [0.3, 1.0]},
    "run__page": False,
}


def by_hand(section: SelfSupervisedObjective, rows: list[list[float]]) -> float:
    width = len(rows[0])
    rows = [[math.sqrt(width) * one for one in row] for row in rows]
    views = rows[0::2], rows[1::2]
    count = len(views[0])
    apart = sum(
        (a - b) ** 2
        for one, other in zip(*views, strict=True)
        for a, b in zip(one, other, strict=True)
    ) / (count * width)
    lacking = shared = 0.0
    for view in views:
        means = [sum(row[d] for row in view) / count for d in range(width)]
        for d in range(width):
            for e in range(width):
                products = ((row[d] - means[d]) * (row[e] - means[e]) for row in view)
                covariance = sum(products) / (count - 1)
                if d == e:
                    lacking += max(0.0, 1 - math.sqrt(covariance + 1e-4)) / width / 2
                else:
                    shared += covariance**2 / width
    return section.invariance * apart + section.variance * lacking + section.covariance * shared


@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_the_loss_is_that_of_a_loop_by_hand(spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.ones(5, dtype=torch.float64)
    views = centre + spread * torch.randn(8, 5, generator=generator, dtype=torch.float64)
    views = torch.nn.functional.normalize(views, dim=1)
    section = SelfSupervisedObjective(invariance=3.0, variance=2.0, covariance=0.7)
    found = views_loss(section, views).loss.item()
    assert found == pytest.approx(by_hand(section, views.tolist()), abs=1e-12)


def test_equal_embeddings_have_a_gradient_that_ends() -> None:
    views = torch.ones(6, 4, dtype=torch.float64, requires_grad=True)
    views_loss(SelfSupervisedObjective(), views).loss.backward()
    assert views.grad is not None and torch.isfinite(views.grad).all()


def test_a_batch_holds_two_views_of_each_picture() -> None:
    pictures = open_split(ScenesData(size=32, train=6, val=1, test=1), "train")
    order, plain = TwoViews(pictures).order(3), pictures.order(3)
    assert [order[p] for p in range(12)] == [plain[p // 2] for p in range(12)]
    assert list(order.replacements(4)) == list(order.replacements(5))
    sample = TwoViews(pictures)[0]
    assert sample.captions == () and sample.label is None
    assert np.array_equal(np.asarray(sample.image), np.asarray(pictures[0].image))


def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole, **SSL)
    interrupt(monkeypatch, stopped, 5, **SSL)
    run(stopped, resume=True, **SSL)
    assert largest_difference(whole, stopped) == 0.0
    start = tmp_path / "start"
    run(start, **{**SSL, "optim__lr": 1e-30, "optim__samples_seen": 16})
    before, after = weights(start), weights(whole)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("image.") for name in moved)
    assert load_model(whole).head is None


def test_the_tuned_tower_can_begin_another_run(tmp_path: Path) -> None:
    run(tmp_path / "adapted", **SSL)
    begun = {
        "model": None,
        "init": {"from": str(tmp_path / "adapted")},
        "optim__lr": 1e-30,
        "optim__samples_seen": 16,
    }
    run(tmp_path / "tuned", **begun)
    before, after = weights(tmp_path / "adapted"), weights(tmp_path / "tuned")
    towers = [name for name in after if name.startswith("image.")]
    assert towers and all(torch.equal(before[name], after[name]) for name in towers)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"optim": {"samples_seen": 8, "global_batch": 5}}, "optim.global_batch: 5"),
        ({"optim": {"samples_seen": 8, "global_batch": 2}}, "optim.global_batch: 2"),
        ({"optim": {"samples_seen": 8, "micro_batch": 8}}, "optim.micro_batch: 8"),
        ({"augment": {"crop_scale": [1.0, 1.0]}}, "nothing to chance"),
        ({"distill": {"from": "teacher"}}, "which no teacher answers"),
        ({"objective": {"kind": "self_supervisd"}}, "did you mean 'self_supervised'"),
    ],
)
def test_what_makes_no_two_views_is_refused(changes: dict[str, object], said: str) -> None:
    given = {"objective": {"kind": "self_supervised"}, **changes}
    assert any(said in line for line in problems(**given)), problems(**given)


def test_several_ranks_are_refused(tmp_path: Path) -> None:
    from ptft.distributed import World
    from ptft.train.setup import set_up

    wanted = recipe(tmp_path, **SSL)
    with pytest.raises(RecipeError, match=r"on 2 ranks.*allowed: one process"):
        set_up(wanted, torch.device("cpu"), World(rank=0, size=2))


@pytest.mark.parametrize("kind", ["shards", "table"])
def test_pictures_need_no_caption(kind: str, tmp_path: Path) -> None:
    """Nor is one read that is there: the same weights come of both."""
    data: dict[str, object] = {"kind": kind}
    for name, captioned in (("bare", False), ("captioned", True)):
        if kind == "shards":
            files = {f"{n:04d}.png": picture(8 * n) for n in range(20)}
            if captioned:
                files |= {f"{n:04d}.txt": f"grey {n}".encode() for n in range(20)}
            made = write_tar(tmp_path / f"{name}.tar", dict(sorted(files.items())))
        else:
            made = tmp_path / f"{name}.parquet"
            rows = [{"image": {"bytes": picture(8 * n)}} for n in range(20)]
            rows = [{**row, "txt": "grey"} for row in rows] if captioned else rows
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), made)
        data["train"] = str(made)
        wanted = recipe(tmp_path / name, **SSL, data=data, optim__samples_seen=32)
        check_splits(wanted)
        assert train(wanted, log=SILENT).finished
        assert read_json(tmp_path / name / RunFiles.RUN)["skipped"] == 0
    assert largest_difference(tmp_path / "bare", tmp_path / "captioned") == 0.0


def test_rows_of_one_picture_are_one_sample(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": picture(8 * (n // 5))}, "text": f"caption {n}"} for n in range(20)]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    data = {"kind": "table", "train": str(path), "captions": ["{text}"]}
    asked = recipe(tmp_path / "run", **SSL, data=data)
    samples = open_split(learned_data(asked), "train")
    assert len(samples) == len(open_split(asked.data, "train")) == 4
    assert samples.describe(0) == ((), None)
    assert samples.notes(1) == ["joined: 20 rows are 4 samples of 4 pictures (data.join)"]
    parts = {"kind": "mixture", "parts": [{"data": data}, {"data": {"kind": "scenes", "size": 32}}]}
    mixed = learned_data(recipe(tmp_path / "run", **SSL, data=parts))
    assert open_split(mixed, "train").describe(0)[0] == ()
