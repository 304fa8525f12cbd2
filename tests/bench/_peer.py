"""ptft's training loop and open_clip_train's, step by step in turn on the same batches.

Both loops are the real ones (``ptft.train.train`` and ``train_one_epoch``); what they are given is
a source of batches that hands the turn to the other loop with every batch, so that a step of each
comes after a step of the other, in one process on one thread. Decoding and tokenising are apart:
each loop is given what its loader would, ptft bytes of pixels, open_clip normalised floats.
"""

import contextlib
import json
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptft.artifact import RunFiles
from ptft.compat import import_open_clip
from ptft.data import Batch
from ptft.model import build_model, open_clip_state_dict
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe
from ptft.speech import SILENT

__all__ = ["in_turn", "make_batches", "make_recipe", "open_clip_optimizer"]

_START, _END, _SHORTEST, _LONGEST = 49406, 49407, 8, 12  # CLIP's marks; tokens of a caption


class _Done(Exception):  # noqa: N818 - the end of a measurement is no error
    """Ends a loop before it writes gigabytes of checkpoints."""


def make_recipe(name: str, batch: int, **changes: Any) -> Recipe:
    """Both sides' settings: open_clip_train's defaults, with the gradient's norm clipped."""
    values: dict[str, Any] = {
        "name": "bench",
        "model": {"name": name},
        "data": {"kind": "scenes"},
        "optim": {
            "samples_seen": 1_000_000,
            "global_batch": batch,
            "lr": 5e-4,
            "weight_decay": 0.2,
            "betas": [0.9, 0.98],
            "eps": 1e-6,
            "warmup": 0.0,
            "schedule": "constant",
            "precision": "fp32",
        },
        "run": {"trackers": [], "workers": 0, "threads": 1, "device": "cpu", "log_every": 1},
    }
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    return parse_recipe(values, where="bench")


def make_batches(recipe: Recipe, size: tuple[int, int], count: int) -> list[Batch]:
    """Noise, and captions of 8 to 12 tokens, their start and end marks included; all differ."""
    rng = np.random.default_rng(0)
    number = recipe.optim.global_batch
    batches = []
    for first in range(0, count * number, number):
        tokens = np.zeros((number, 77), np.int64)
        for row in tokens:
            length = rng.integers(_SHORTEST, _LONGEST + 1)
            row[1 : length - 1] = rng.integers(1_000, 40_000, length - 2)
            row[0], row[length - 1] = _START, _END
        pixels = rng.integers(0, 256, (number, *size, 3), np.uint8)
        batches.append(
            Batch(
                images=torch.from_numpy(pixels),
                tokens=torch.from_numpy(tokens),
                caption_ids=torch.arange(first, first + number),
                labels=None,
                names=[str(first + place) for place in range(number)],
                skipped=[],
            )
        )
    return batches


def open_clip_optimizer(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """As ``open_clip_train.main`` makes it."""

    def plain(name: str, parameter: torch.Tensor) -> bool:
        parts = ("bn", "ln", "bias", "logit_scale")
        return parameter.ndim < 2 or any(part in name for part in parts)

    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if plain(n, p)], "weight_decay": 0.0},
        {
            "params": [p for n, p in named if not plain(n, p)],
            "weight_decay": recipe.optim.weight_decay,
        },
    ]
    optim = recipe.optim
    assert optim.betas is not None and optim.eps is not None
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps)


def in_turn(
    recipe: Recipe, steps: int, *, prepare: Callable[[Any, Batch], Batch] | None = None
) -> dict[str, Any]:
    """Run both loops on the same batches from the same weights, in this process.

    Args:
        recipe: of both; its locked image tower is locked in both, and its projection in neither.
        steps: the first is a warm-up.
        prepare: makes of the model and a batch what ptft's loader would give.

    Returns:
        CPU seconds of each step but the first and losses of every step, of ``ptft`` and
        ``open_clip``.
    """
    open_clip = import_open_clip()
    from open_clip_train.train import train_one_epoch

    from ptft.train import loop as loop_steps
    from ptft.train import run as loop

    torch.set_num_threads(1)
    model = build_model(recipe.model, None, recipe.objective, seed=recipe.seed)
    batches = make_batches(recipe, model.spec.preprocess.size, steps)
    ours = [batch if prepare is None else prepare(model, batch) for batch in batches]
    theirs = [(model.normalise(batch.images), batch.tokens) for batch in batches]
    peer = open_clip.create_model(recipe.model.name, output_dict=True)  # type: ignore[union-attr]
    peer.load_state_dict(open_clip_state_dict(model))
    del model
    if "image" in getattr(recipe.adapt, "lock", []):
        peer.lock_image_tower(unlocked_groups=1)  # --lock-image-unlocked-groups: the projection
    turns = _Turns()
    losses: list[float] = []

    class Loss(open_clip.ClipLoss):  # type: ignore[name-defined]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            given = super().forward(*args, **kwargs)
            losses.append(given["contrastive_loss"].item())
            return given

    def run_peer() -> None:
        source = _Source(turns, "open_clip", theirs)
        data = types.SimpleNamespace(dataloader=source, set_epoch=lambda epoch: None)
        with turns.taking_part("open_clip"):
            optimizer = open_clip_optimizer(peer, recipe)
            train_one_epoch(
                peer, {"train": data}, Loss(), 0, optimizer, None, None, None, _arguments(recipe)
            )

    plain = loop_steps.batches
    loop_steps.batches = lambda *_, **__: iter(_Source(turns, "ptft", ours))
    other = threading.Thread(target=run_peer, daemon=True)
    with tempfile.TemporaryDirectory() as folder:
        run = recipe.run.model_copy(update={"dir": f"{folder}/run"})
        other.start()
        try:
            with turns.taking_part("ptft"):
                loop.train(recipe.model_copy(update={"run": run}), log=SILENT)
        finally:
            loop_steps.batches = plain
            other.join()
        lines = (Path(folder) / "run" / RunFiles.LOG).read_text().splitlines()
    own = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
    return {"seconds": turns.seconds, "losses": {"ptft": own, "open_clip": losses}}


class _Turns:
    """Whose turn it is, and the CPU seconds of each turn but the first."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"ptft": [], "open_clip": []}
        self._free = {"ptft": threading.Semaphore(1), "open_clip": threading.Semaphore(0)}
        self._failed = False

    def wait(self, name: str) -> None:
        self._free[name].acquire()
        if self._failed:
            raise _Done

    def hand_over(self, name: str) -> None:
        for other in self._free.keys() - {name}:
            self._free[other].release()

    @contextlib.contextmanager
    def taking_part(self, name: str) -> Iterator[None]:
        """Around a loop: its end is quiet, its failure ends the other loop too."""
        try:
            with contextlib.suppress(_Done):
                yield
        except BaseException:
            self._failed = True
            self.hand_over(name)
            raise


class _Source:
    """Batches for one loop: a step lasts from when it takes one to when it asks for the next."""

    def __init__(self, turns: _Turns, name: str, batches: list[Any]) -> None:
        self.turns, self.name, self.batches = turns, name, batches
        self.num_batches = len(batches)
        self.num_samples = sum(len(batch[0]) for batch in batches if isinstance(batch, tuple))

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.batches):
            self.turns.wait(self.name)
            started = time.process_time()
            yield batch
            if number:
                self.turns.seconds[self.name].append(time.process_time() - started)
            self.turns.hand_over(self.name)
        raise _Done


def _arguments(recipe: Recipe) -> types.SimpleNamespace:
    """What ``train_one_epoch`` reads of open_clip_train's command line."""
    return types.SimpleNamespace(
        device="cpu",
        precision="fp32",
        batch_size=recipe.optim.global_batch,
        grad_clip_norm=recipe.optim.clip_grad_norm,
        accum_freq=1,
        distill=False,
        skip_scheduler=True,
        horovod=False,
        rank=0,
        local_rank=0,
        world_size=1,
        log_local=False,
        log_every_n_steps=100,
        wandb=False,
    )
