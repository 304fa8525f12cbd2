"""Checkpoints that two ranks wrote beside a step go on at one, two and four, sharded or not.

One process imports torch and forks into four ranks, which try every combination together.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ptft.checkpoint import (
    Background,
    TrainProgress,
    checkpoints,
    load_checkpoint,
    prune_checkpoints,
    resume_checkpoint,
    save_checkpoint,
)
from ptft.distributed import World
from ptft.errors import ArtifactError, CheckpointError
from ptft.files.tensors import TensorFiles, tensor_file, write_tensors
from ptft.model import DualEncoder, load_model, save_model
from tests.support.tiny import build, towers_section

RANKS, BATCH, SAVED, STEPS = 4, 8, 2, 3
_WORDS = 50

# What wrote a checkpoint -> what goes on with it; a number is of ranks
_PAIRS = {
    "fsdp2": ("plain1", "fsdp2", "fsdp4", "ddp2", "ddp4"),
    "fsdp4": ("fsdp2", "plain1"),
    "ddp2": ("fsdp4",),
    "plain1": ("fsdp2",),
}


@dataclass
class Run:
    """A small double-precision run on some ranks, under one of the ways to share it."""

    model: DualEncoder
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: dict[str, Tensor]
    world: World
    progress: TrainProgress

    def steps(self, last: int) -> None:
        share = BATCH // self.world.size
        for step in range(self.progress.step, last):
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(BATCH, 3, 32, 32, generator=generator, dtype=torch.float64)
            tokens = torch.randint(1, _WORDS, (BATCH, 6), generator=generator)
            mine = slice(self.world.rank * share, (self.world.rank + 1) * share)
            self.optimizer.zero_grad()
            image_bd, text_bd = self.wrapped(images[mine], tokens[mine])
            ((image_bd - text_bd).square().sum(1) - 0.3).square().mean().backward()
            self.optimizer.step()
            for name, parameter in self.model.named_parameters():
                self.averaged[name].lerp_(parameter.detach(), 0.5)
            self.progress.step += 1

    def whole(self) -> dict[str, Tensor]:
        tensors = {**dict(self.model.named_parameters())}
        tensors |= {f"averaged/{name}": tensor for name, tensor in self.averaged.items()}
        return {
            name: (t.full_tensor() if hasattr(t, "full_tensor") else t).detach().clone()
            for name, t in tensors.items()
        }


def start(plain: DualEncoder, how: str, world: World, mesh: DeviceMesh) -> Run:
    model = copy.deepcopy(plain)
    model.logit_scale.requires_grad_(False)
    wrapped: Any = model
    if how == "ddp":
        wrapped = DistributedDataParallel(model, process_group=world.tensors)
    if how == "fsdp":
        for part in (*model.text.transformer.resblocks, model):
            fully_shard(part, mesh=mesh)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    group = {"params": [p for _, p in named], "names": [n for n, _ in named]}
    # a large eps: m / sqrt(v) of a gradient near 0 would magnify how its sum was rounded
    optimizer = torch.optim.AdamW([group], lr=0.05, weight_decay=0.1, eps=0.01, fused=True)
    averaged = {name: p.detach().clone() for name, p in model.named_parameters()}
    return Run(model, wrapped, optimizer, averaged, world, TrainProgress())


def child(rank: int, folder: Path, plain: DualEncoder) -> None:
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    meshes = {size: DeviceMesh("cpu", list(range(size))) for size in (1, 2, 4)}
    worlds = {
        size: World(rank, size, tensors=mesh.get_group(), host=mesh.get_group())
        for size, mesh in meshes.items()
        if rank < size
    }

    def run(way: str) -> Run | None:
        how, size = way[:-1], int(way[-1])
        return start(plain, how, worlds[size], meshes[size]) if rank < size else None

    alone = run("plain1")
    if alone:
        alone.steps(STEPS)
        save_file(alone.whole(), folder / "expected.safetensors")
    for saved in _PAIRS:
        if one := run(saved):
            one.steps(SAVED)
            save_beside(folder / saved, one)
    dist.barrier()
    found = {}
    for saved, resumed in [(saved, resumed) for saved, ways in _PAIRS.items() for resumed in ways]:
        if one := run(resumed):
            path = folder / saved / f"step-{SAVED:08d}"
            one.progress = load_checkpoint(
                path, one.model, one.optimizer, one.averaged, world=one.world
            )
            one.steps(STEPS)
            whole = one.whole()
            if rank == 0:
                expected = load_file(folder / "expected.safetensors")
                assert whole.keys() == expected.keys()
                worst = max((whole[n] - expected[n]).abs().max().item() for n in expected)
                found[f"{saved} at {resumed}"] = worst
    if two := run("fsdp2"):
        found |= faults(folder, two)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def save_beside(folder: Path, one: Run) -> None:
    """Save, with another step taken before it is known to be written."""
    writer = Background(one.world)
    writer.begin(folder, one.model, one.optimizer, one.progress, one.averaged, copied=True)
    one.steps(SAVED + 1)
    progress = writer.finish()
    assert progress is not None and progress.step == SAVED
    writer.close()


def faults(folder: Path, run: Run) -> dict[str, Any]:
    """What two ranks make of a damaged file, and of a folder that only one of them cannot use."""
    place, world = folder / "faults", run.world
    for _ in range(2):
        run.steps(run.progress.step + 1)
        save_checkpoint(place, run.model, run.optimizer, run.progress, run.averaged, world=world)
    if world.first:
        spoil(place / "step-00000002" / tensor_file("optimizer", 1, 2))
    world.barrier()
    said: list[str] = []
    progress = resume_checkpoint(
        place, run.model, run.optimizer, run.averaged, world=world, say=said.append
    )
    refused = ""
    if world.rank == 1:  # as if the disk of this rank's machine were full
        limit_file_size()
    try:
        progress.step = 9
        save_checkpoint(place, run.model, run.optimizer, progress, run.averaged, world=world)
    except CheckpointError as error:
        refused = str(error)
    if world.first:
        (folder / "rank0.json").write_text(json.dumps([progress.step, said, refused]))
    elif not refused:
        raise AssertionError("the rank whose disk is full must say so")
    return {"resumed at": 1 if "step-00000002" in said[0] else None, "refused": refused}


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def limit_file_size() -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    # the rows of the image projection are 23, which no number of ranks here divides
    plain = build(towers_section(image="test_vit", embed_dim=23)).double().train()
    plain.text.token_embedding = nn.Embedding(_WORDS, 32, dtype=torch.float64)  # of 49,408
    children = []
    for rank in range(RANKS):
        process = os.fork()
        if process == 0:
            child(rank, folder, plain)
            os._exit(0)
        children.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]
    sys.exit(max(map(abs, codes)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the four ranks worked."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.train.test_checkpoint_sharded",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "found.json").read_text())


def test_any_world_goes_on_with_what_another_saved(found: dict[str, Any]) -> None:
    worst = {way: value for way, value in found.items() if " at " in way and "resumed" not in way}
    assert len(worst) == sum(map(len, _PAIRS.values()))
    assert max(worst.values()) <= 1e-12, worst


def test_each_rank_writes_its_own_rows_only(shared: Path) -> None:
    folder = shared / "fsdp2" / "step-00000002"
    names = sorted(path.name for path in folder.iterdir())
    assert "model.safetensors" not in names
    state = json.loads((folder / "state.json").read_text())
    assert set(names) == {*state["files"], "state.json"}
    parts = [load_file(folder / tensor_file("model", rank, 2)) for rank in range(2)]
    assert [len(part["image.head.proj.weight"]) for part in parts] == [12, 11]
    assert "logit_scale" not in parts[1]  # one row
    whole = [path.name for path in (shared / "ddp2" / "step-00000002").iterdir()]
    assert "model.safetensors" in whole
    assert not [name for name in whole if "rank" in name]


def test_a_damaged_part_falls_back_on_every_rank(found: dict[str, Any]) -> None:
    assert found["resumed at"] == 1


def test_a_full_disk_of_one_rank_is_told_by_all_and_spoils_nothing(
    shared: Path, found: dict[str, Any]
) -> None:
    assert "step-00000009: cannot be written" in found["refused"]
    assert "File too large" in found["refused"]
    left = sorted(path.name for path in (shared / "faults").iterdir())
    assert left == ["step-00000001", "step-00000002"]


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[Path]:
    """A model folder whose weights lie in two files, cut here by hand."""
    save_model(build(towers_section()), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    state = load_file(tmp_path / "whole" / "model.safetensors")
    (tmp_path / "parts" / "model.safetensors").unlink()
    for rank in range(2):
        part, rows = {}, {}
        for name, tensor in state.items():
            cut = -(-len(tensor) // 2) if tensor.ndim else 0
            mine = (tensor[:cut] if rank == 0 else tensor[cut:]) if cut else tensor
            if cut and len(mine):
                part[name], rows[name] = mine.contiguous(), [rank * cut, len(tensor)]
            elif not cut and rank == 0:
                part[name] = tensor
        name = f"model-rank{rank:05d}-of-00002.safetensors"
        save_file(part, tmp_path / "parts" / name, {"rows": json.dumps(rows)})
    yield tmp_path


def test_a_model_is_read_from_parts(halves: Path) -> None:
    whole, parts = load_model(halves / "whole").state_dict(), load_model(halves / "parts")
    assert all(torch.equal(whole[name], tensor) for name, tensor in parts.state_dict().items())


def test_a_missing_part_is_named(halves: Path) -> None:
    (halves / "parts" / tensor_file("model", 1, 2)).unlink()
    with pytest.raises(ArtifactError, match=r"model-rank00001-of-00002\.safetensors: missing"):
        load_model(halves / "parts")


def test_rows_that_are_missing_are_counted(tmp_path: Path) -> None:
    for rank, rows in ((0, [0, 6]), (1, [4, 6])):
        save_file(
            {"w": torch.ones(2, 3)},
            tmp_path / tensor_file("model", rank, 2),
            {"rows": json.dumps({"w": rows})},
        )
    with (
        TensorFiles(tmp_path, "model") as files,
        pytest.raises(ArtifactError, match="w lacks 2 of its rows"),
    ):
        files.read("w")


def test_tied_weights_and_scalars_go_through_a_file(tmp_path: Path) -> None:
    weight = torch.randn(3, 4, dtype=torch.bfloat16)
    tensors = {"a": weight, "tied": weight, "count": torch.tensor(3), "empty": torch.zeros(0, 2)}
    write_tensors(tmp_path / "x.safetensors", tensors)
    with TensorFiles(tmp_path, "x") as files:
        assert files.names() == sorted(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(files.read(name), tensor)
            assert files.read(name).dtype == tensor.dtype


def test_only_what_is_newest_and_of_this_run_is_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        (tmp_path / f"step-{step:08d}").mkdir()
    (tmp_path / ".step-00000012.partial").mkdir()
    prune_checkpoints(tmp_path, 2, 6)  # 8 and 10 were damaged; the run went on from 4
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000006", "step-00000004"]
    assert not list(tmp_path.glob(".*"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
