"""Several ranks against one process: the same losses, gradients and weights, in float64.

The ranks (gloo, on this machine) run in one program, ``tests/support/ranks.py``, with
deprecations as errors.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from ptft.artifact import RunFiles
from ptft.distributed import ALONE, World, join_world, meeting_place
from ptft.errors import RecipeError, TrainingError
from ptft.train.parallel import check_agreement, share
from tests.support.ranks import CASES, JUDGED, learn
from tests.support.runs import largest_difference, run
from tests.support.steps import largest_gap, learner, recipe


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What came out of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    strict = ["-W", "error::DeprecationWarning", "-W", "error::FutureWarning"]
    done = subprocess.run(
        [sys.executable, *strict, "-m", "tests.support.ranks", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: learn(name, "ddp", ALONE) for name in sorted({name for name, _, _ in CASES.values()})
    }


@pytest.mark.parametrize("case", CASES)
def test_ranks_equal_one_process(
    ranks: Path, alone: dict[str, dict[str, torch.Tensor]], case: str
) -> None:
    found, wanted = load_file(ranks / f"{case}.safetensors"), dict(alone[CASES[case][0]])
    # losses and gradient norms, of which some are near 100: rounding grows with them
    torch.testing.assert_close(found.pop("figures"), wanted.pop("figures"), rtol=1e-12, atol=1e-12)
    assert largest_gap(found, wanted) <= 1e-12


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the ranks made, in one process."""
    folder = tmp_path_factory.mktemp("one") / "run"
    assert run(folder, optim__micro_batch=4, optim__ema=0.9, **JUDGED).finished
    return folder


@pytest.mark.parametrize("how", ["ddp", "fsdp", "apart/machine0/run"])
def test_a_run_on_ranks_is_the_run_of_one_process(ranks: Path, one: Path, how: str) -> None:
    """Under FSDP2 a signal to the second rank stopped both halfway, the disk was lost, and a
    restart went on from both ranks' parts in the mirror; with DDP the first rank's clock stopped
    both, on one machine and on two that share no disk, of which the second was sent the
    checkpoint."""
    folder = ranks / how
    assert largest_difference(folder, one) < 1e-5  # float32
    record = json.loads((folder / RunFiles.RUN).read_text())
    assert record["status"] == "finished"
    assert json.loads((folder / RunFiles.METRICS).read_text())["held-out"]
    lines = [json.loads(line) for line in (folder / RunFiles.LOG).read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    alone = [json.loads(line) for line in (one / RunFiles.LOG).read_text().splitlines()]
    expected = [line["loss"] for line in alone if "loss" in line]
    assert record["best"]["step"] == json.loads((one / RunFiles.RUN).read_text())["best"]["step"]
    assert list(losses) == list(range(1, 9))
    assert list(losses.values()) == pytest.approx(expected, rel=1e-4)


def test_ranks_that_are_started_again_do_not_find_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dist.TCPStore("127.0.0.1", 0, is_master=True)  # as torchrun keeps it over a restart
    values = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(kept.port)}
    for name, value in {**values, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    one_machine, two = {"GROUP_WORLD_SIZE": "1"}, {"GROUP_WORLD_SIZE": "2"}
    meeting_place(one_machine, 0, 1, restarts=0).set("address of rank 0", "dead")
    assert not meeting_place(one_machine, 0, 1, restarts=1).check(["address of rank 0"])
    meeting_place(two, 0, 1, restarts=0).set("address of rank 0", "alive")
    assert meeting_place(two, 0, 1, restarts=1).check(["address of rank 0"])


def test_without_torchrun_a_process_is_alone() -> None:
    with join_world("cpu", lost_after=60, environment={}) as world:
        assert world is ALONE
    with (
        pytest.raises(TrainingError, match="the environment of torchrun is incomplete"),
        join_world("cpu", lost_after=60, environment={"RANK": "0", "WORLD_SIZE": "2"}),
    ):
        pass


class _Two(World):
    """Rank 1 of two, of which the other has learned a step already."""

    def gather_objects(self, text: str) -> list[str]:
        return [f"{text[:-1]}?", text]


def test_ranks_that_start_from_different_weights_are_told() -> None:
    model = learner(recipe(), double=False)
    with pytest.raises(TrainingError, match=r"rank 1 starts from 80 samples, weights \w+; rank 0"):
        check_agreement(model, 80, _Two(rank=1, size=2))


def test_a_batch_norm_that_would_see_a_share_is_refused() -> None:
    group: Any = object()
    with pytest.raises(RecipeError, match=r"run\.parallel: ddp: image\.bn1 is a batch norm"):
        share(learner(recipe(), "tiny-resnet", double=False), World(size=2, tensors=group), "ddp")
