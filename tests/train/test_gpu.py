"""What only a GPU shows: the same gradients there, and NCCL in place of gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ptft.artifact import RunFiles
from ptft.distributed import ALONE
from ptft.objective import clip_loss, siglip_loss
from ptft.recipe import dump_recipe
from ptft.tiled import tiled_clip_loss, tiled_siglip_loss
from ptft.train.gradients import Step
from ptft.train.parallel import share
from tests.support.runs import largest_difference
from tests.support.runs import recipe as tiny_run
from tests.support.steps import batch, gradients, largest_gap, learner, recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("micro", [None, 3])
def test_gradients_are_the_cpus(kind: str, micro: int | None) -> None:
    section = recipe(objective__kind=kind, optim__micro_batch=micro)
    found = {}
    for device in ("cpu", "cuda"):
        model = learner(section).to(device)
        scaler = torch.amp.GradScaler(device, enabled=False)
        Step(section.objective, section.optim, share(model, ALONE), scaler=scaler)(batch(model))
        found[device] = {name: by.cpu() for name, by in gradients(model).items()}
    assert largest_gap(found["cuda"], found["cpu"]) < 1e-12


def test_tiled_losses_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    rows = [torch.nn.functional.normalize(torch.randn(3_000, 16).double(), dim=1) for _ in "it"]
    scale, bias = torch.tensor([14.0]).double(), torch.tensor([-5.0]).double()
    ids = torch.arange(3_000) % 2_500
    for plain, tiled, extra in (
        (clip_loss, tiled_clip_loss, ()),
        (siglip_loss, tiled_siglip_loss, (bias,)),
    ):
        results = []
        for loss, device in ((plain, "cpu"), (tiled, "cuda")):
            given = [t.to(device).requires_grad_() for t in (*rows, scale, *extra)]
            value = loss(*given, ids.to(device))
            value.backward()
            results.append([value.detach().cpu(), *(t.grad.cpu() for t in given)])
        gaps = [(a - b).abs().max().item() for a, b in zip(*results, strict=True)]
        assert max(gaps) < 1e-12


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_rank_on_nccl_trains_as_a_process_alone(how: str, tmp_path: Path) -> None:
    """Weights within rounding."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    for name, start in (("alone", []), ("rank", torchrun)):
        section = tiny_run(tmp_path / name, run__device="cuda", run__parallel=how)
        path = tmp_path / f"{name}.yaml"
        path.write_text(dump_recipe(section))
        command = [sys.executable, *start, "-m", "ptft", "train", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert largest_difference(tmp_path / "alone", tmp_path / "rank") < 1e-5
    record = json.loads((tmp_path / "rank" / RunFiles.RUN).read_text())
    assert record["device"].startswith("cuda")
