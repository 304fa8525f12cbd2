"""``python -m tests.support.ranks FOLDER``: every case of ``CASES`` on its ranks.

One process imports everything and forks the ranks; rank 0 of each case leaves what came out in
``FOLDER/<case>.safetensors``.
"""

import importlib
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ptft.checkpoint import machines
from ptft.compat import import_open_clip
from ptft.data import Batch
from ptft.distributed import World, join_world
from ptft.errors import CheckpointError, TrainingError, UsageError
from ptft.evaluate import ranks
from ptft.objective import clamp_logit_scale
from ptft.optim import build_optimizer
from ptft.recipe import RunSection
from ptft.speech import LOG, SILENT, tell_once
from ptft.train import exit_code, loop, train
from ptft.train.gradients import Step
from ptft.train.parallel import share, whole_tensor
from ptft.train.run import joined_world
from ptft.train.state.regularise import Pull
from tests.support.runs import recipe as tiny_run
from tests.support.steps import batch, learner, recipe

STEPS = 2
SIGLIP = {"objective__kind": "siglip"}
CLASSIFY = {"objective__kind": "classify", "objective__label_smoothing": 0.1}
SETTINGS: dict[str, dict[str, Any]] = {
    "clip": {},
    "clip-gradcache": {"optim__micro_batch": 3},
    "siglip": SIGLIP,
    "siglip-gradcache": {**SIGLIP, "optim__micro_batch": 1},
    "classify-gradcache": {"optim__micro_batch": 2, **CLASSIFY},
    "clip-pull": {"regularise": {"start": 0.3}},
    "clip-single-positive": {"objective__multi_positive": False},
    "classify-probe": {**CLASSIFY, "adapt": {"kind": "probe"}},
    "locked-gradcache": {"adapt__lock": ["image"], "optim__micro_batch": 3},
}
CASES = {  # by name: setting, way, ranks
    **{f"{name}-{how}-2": (name, how, 2) for name in SETTINGS for how in ("ddp", "fsdp")},
    "clip-gradcache-fsdp-4": ("clip-gradcache", "fsdp", 4),
}


JUDGED: dict[str, Any] = {
    "evaluate": [{"kind": "retrieval", "name": "held-out"}],
    "early_stop": {"every": 2, "patience": 9},
}


def learn(name: str, how: str, world: World) -> dict[str, torch.Tensor]:
    """A few steps of a setting in float64: the weights, and losses, norms and pulls by step."""
    section = recipe(run__parallel=how, **SETTINGS[name])
    model = learner(section)
    parallel = share(model, world, section.run.parallel)
    optimizer = build_optimizer(model, section.optim)
    pull = None
    if section.regularise is not None:
        assert section.regularise.start != "auto"
        held = {name: p for name, p in model.named_parameters() if p.requires_grad}
        pull = Pull(held, section.regularise.start)
    step = Step(section.objective, section.optim, parallel)
    figures = []
    for number in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        output = step(_rows(batch(model, seed=number), world))
        loss = world.mean({"loss": output.loss.item()})["loss"]
        penalty = 0.0 if pull is None else pull.add_gradients(world).item()
        learning = [p for group in optimizer.param_groups for p in group["params"]]
        norm = whole_tensor(torch.nn.utils.clip_grad_norm_(learning, 1.0))
        optimizer.step()
        clamp_logit_scale(section.objective, model)
        figures.append([loss, norm.item(), penalty])
    with parallel.whole() as whole:
        state = {} if whole is None else {k: v.clone() for k, v in whole.state_dict().items()}
    return {**state, "figures": torch.tensor(figures, dtype=torch.float64)}


def _rows(whole: Batch, world: World) -> Batch:
    """A rank's share of a batch."""
    size = len(whole.images) // world.size
    own = slice(world.rank * size, (world.rank + 1) * size)
    assert whole.tokens is not None
    assert whole.caption_ids is not None
    assert whole.labels is not None
    return Batch(
        images=whole.images[own],
        tokens=whole.tokens[own],
        caption_ids=whole.caption_ids[own],
        labels=whole.labels[own],
        names=whole.names[own],
        skipped=[],
    )


def fork(size: int, work: Any, *arguments: Any, **environment: str) -> None:
    """Run ``work(*arguments)`` on ``size`` ranks of this machine, started as torchrun would.

    Raises:
        RuntimeError: one of them failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    processes = [
        context.Process(
            target=_rank,
            args=({**shared, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},),
            kwargs={"work": work, "arguments": arguments},
        )
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"exit codes {[process.exitcode for process in processes]}")


def _rank(environment: dict[str, str], work: Any, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= environment
    options = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
    work(*arguments[: len(arguments) - bool(options)], **options)


def _cases(folder: Path) -> None:
    with join_world("cpu", lost_after=60) as world:
        for case, (name, how, size) in CASES.items():
            if size == world.size:
                found = learn(name, how, world)
                if world.first:
                    save_file(found, folder / f"{case}.safetensors")


def _talk() -> None:
    """What ranks tell each other: values of any kind, and a failure, which all of them raise."""
    with join_world("cpu", lost_after=60) as world:
        kept = world.gather_objects({"rank": world.rank, "path": Path(str(world.rank)), "": None})
        assert [one["rank"] for one in kept] == [0, 1] and kept[1]["path"] == Path("1")
        assert world.broadcast(f"!{world.rank}" if world.first else None) == "!0"
        assert world.on_first(lambda: ("!", world.rank)) == ("!", 0)

        def fails_on(rank: int) -> str:
            if world.rank == rank:
                raise CheckpointError(f"rank {rank} is full")
            return "!"

        for rank in range(2):
            try:
                world.together(lambda rank=rank: fails_on(rank), (CheckpointError,))  # type: ignore[misc]
            except TrainingError as error:
                assert str(error) == f"rank {rank} is full"
            else:
                raise AssertionError("nobody said that it failed")
        assert world.together(lambda: world.rank, (CheckpointError,)) == [0, 1]
        try:
            world.on_first(lambda: fails_on(0))
        except (CheckpointError, TrainingError) as error:
            said = "rank 0 is full" if world.first else "rank 0 stopped: rank 0 is full"
            assert str(error) == said
        else:
            raise AssertionError("nobody said that it failed")


def _rank_queries() -> None:
    """A retrieval of the first rank's is ranked by both as by one alone; a share that fails on the
    second fails on the first, and leaves neither waiting."""
    ranks.SCORES_AT_ONCE = 500  # in 18 blocks each way
    with join_world("cpu", lost_after=60) as world:
        if not world.first:
            assert ranks.help_first(world, torch.device("cpu")) == 2
            ranks.caption_ranks = _no_room
            assert ranks.help_first(world, torch.device("cpu")) == 1
            return
        generator = torch.Generator().manual_seed(0)
        rows = torch.nn.functional.normalize(torch.randn(213, 8, generator=generator), dim=1)
        owners = torch.randint(0, 50, (160,), generator=generator)
        embeddings = (rows[:53], rows[53:], owners)
        alone = ranks.rank_retrieval(*embeddings)
        with ranks.helped(world):
            for _ in range(2):
                found = ranks.rank_retrieval(*embeddings)
                assert found.i2t_q.tolist() == alone.i2t_q.tolist()
                assert found.t2i_m.tolist() == alone.t2i_m.tolist()
        try:
            with ranks.helped(world):
                ranks.rank_retrieval(*embeddings)
        except TrainingError as error:
            assert str(error) == "no room"
        else:
            raise AssertionError("nobody said that it failed")


def _no_room(*_: object) -> torch.Tensor:
    raise RuntimeError("no room")


def _speak() -> None:
    """What all ranks do, the first alone says."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    with joined_world(RunSection(device="cpu"), LOG) as (world, _):
        tell_once(f"{os.getpid()}: from the Hub")
        assert len(heard) == (1 if world.first else 0), heard
    tell_once("all of it")
    assert heard[-1] == "all of it"


def _run(folder: Path, how: str, stop_at: int | None, **changes: Any) -> None:
    """A run, or its part until a signal comes to the second rank, or its time is over."""
    first = os.environ["RANK"] == "0"
    plain = loop.batches

    def batches(*arguments: Any, **options: Any) -> Iterator[Batch]:
        restarted = "TORCHELASTIC_RESTART_COUNT" in os.environ
        assert (options["start"] > 0) == restarted, "a restart goes on"
        for number, one in enumerate(plain(*arguments, **options), 1):
            if number == stop_at and not first:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield one

    loop.batches = batches
    changes |= {"run__parallel": how, "optim__micro_batch": 4, "optim__ema": 0.9}
    result = train(tiny_run(folder, **JUDGED, **changes), log=SILENT)
    late = "run__max_minutes" in changes  # by the clock of the first rank alone
    assert result.finished == (stop_at is None and not late)
    assert result.signal == (None if stop_at is None else signal.SIGUSR1)
    assert exit_code(result) == (0 if result.finished else 75)
    assert result.first == first
    assert bool(result.metrics) == (first and result.finished)


def _apart(folder: Path, how: str, **changes: Any) -> None:
    """A part of a run in a folder that the second machine does not see."""
    rank = os.environ["RANK"]
    os.environ["LOCAL_RANK"] = "0"  # the first of its machine
    home = folder / f"machine{rank}"
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
    if how == "ddp":
        _run(Path("run"), how, None, **changes)
        assert (home / "run" / "final").is_dir() == (rank == "0" and not changes)
        assert rank == "0" or not [path for path in home.rglob("*") if path.is_file()]
        return
    machines.SEEN_WITHIN = 0.1
    try:
        _run(Path("run"), how, None, **changes)
    except UsageError as error:
        assert str(error).startswith("run.dir: rank 1 does not see run/run.json"), error
    else:
        raise AssertionError("a part of each checkpoint is nowhere")


if __name__ == "__main__":
    for heavy in ("matplotlib.figure", "matplotlib.backends.backend_agg", "torch.distributed.fsdp"):
        importlib.import_module(heavy)  # once here, not in each rank
    import_open_clip()
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    fork(2, _talk)
    fork(2, _rank_queries)
    fork(2, _speak)
    fork(2, _cases, out)
    fork(4, _cases, out)
    fork(2, _run, out / "ddp", "ddp", None, {"run__max_minutes": 1e-9})
    fork(2, _run, out / "ddp", "ddp", None, TORCHELASTIC_RESTART_COUNT="1")
    fork(2, _apart, out / "apart", "ddp", {"run__max_minutes": 1e-9})
    fork(2, _apart, out / "apart", "ddp", TORCHELASTIC_RESTART_COUNT="1")
    fork(2, _apart, out / "apart-fsdp", "fsdp")
    mirror = {"run__mirror": str(out / "mirror")}
    fork(2, _run, out / "fsdp", "fsdp", 4, mirror)
    assert "model-rank00001-of-00002.safetensors" in max(
        path.read_text() for path in (out / "mirror" / "manifests").iterdir()
    ), "every rank's part of the checkpoint"
    shutil.rmtree(out / "fsdp")  # with the machine
    fork(2, _run, out / "fsdp", "fsdp", None, mirror, TORCHELASTIC_RESTART_COUNT="1")
