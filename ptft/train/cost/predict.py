"""What a recipe takes on machines that are not here: memory, time and money, and on what basis."""

from typing import Any

import torch

from ptft.cards import Machine, Offer
from ptft.errors import RecipeError
from ptft.optim import total_samples
from ptft.recipe import Recipe
from ptft.train.cost.count import count_step
from ptft.train.cost.memory import memory_parts
from ptft.train.cost.speed import card_speed
from ptft.train.setup import Setup, set_up

__all__ = ["predict_on"]

_CONTEXT = 1 << 30  # bytes: CUDA's context, libraries and workspaces; assumed, no GPU was at hand
_HALF = 2  # bytes of a bf16


def predict_on(recipe: Recipe, offer: Offer) -> dict[str, Any]:
    """Predict a run on an offer's GPUs: its step is counted on two samples here, on the CPU.

    Memory is that of one GPU, as :func:`ptft.train.predict_memory` counts it, with what its share
    of the batch takes. Times leave out evaluations, checkpoints and data that are read too slowly;
    arithmetic is the step's own, with the second forward pass of micro batches.

    Returns:
        ``machine``, ``precision``, ``gib`` (parts and total of one GPU), ``gib_of_card``, ``fits``,
        ``gflop_per_sample``, ``step_seconds``, ``samples_per_second``, ``hours``, ``gpu_hours``,
        ``cost`` where a price is given, ``notes`` and ``based_on``, lines in words.

    Raises:
        DataError, ModelError, RecipeError: as training would; or the batch does not part over the
            GPUs, or nothing learns by steps.
    """
    machine, size = offer.machine, recipe.optim.global_batch
    if size % machine.count:
        raise RecipeError(
            f"--on {machine.label}: optim.global_batch: {size}: does not part over "
            f"{machine.count} GPUs; allowed: a number of GPUs that divides it"
        )
    setup = set_up(recipe, torch.device("cpu"))
    if not setup.steps:
        raise RecipeError(
            f"adapt.kind: {recipe.adapt.kind!r}: nothing learns by steps, so none can be predicted"
        )
    setup.model.train()
    precision = _precision(recipe, machine)
    count = count_step(recipe, setup, precision=precision)
    share = size // machine.count
    micro = recipe.optim.micro_batch or share
    parts = memory_parts(recipe, setup, count.kept, min(micro, share))
    grows = sum(parts.values()) - sum(memory_parts(recipe, setup, count.kept, 0).values())
    copy = parts.pop("checkpoint") / 2**30  # of all ranks together
    memory = _memory(recipe, setup, parts, grows, offer, precision, min(micro, share))
    speed = card_speed(machine.card, utilisation=offer.utilisation)
    again = count.forward * (1 - min(micro, share) / share)
    per_sample = count.flops + again
    samples = total_samples(recipe.optim, len(setup.samples))
    rate = machine.count * speed.flops / per_sample
    found: dict[str, Any] = {
        "machine": machine.label,
        "card": machine.card.name,
        "precision": precision,
        **memory,
        "gflop_per_sample": round(per_sample / 1e9, 3),
        "step_seconds": _short(size / rate),
        "samples_per_second": _short(rate),
        "hours": _short(samples / rate / 3600),
        "gpu_hours": _short(machine.count * samples / rate / 3600),
    }
    if offer.price is not None:
        found["cost"] = _short(offer.price * machine.count * samples / rate / 3600)
    found["based_on"] = [
        f"time: {speed.basis}; this card: {speed.utilisation:.1%} of its own; newer kernels reach "
        "more, a run that waits for its data less",
        "arithmetic: counted on a step of two samples of the recipe's own data",
        f"memory: an upper bound, counted in {precision}; {_CONTEXT >> 30} GiB of it are assumed "
        f"for CUDA; copies for checkpoints take {copy:.2f} GiB of main memory",
        f"card: {machine.card.source}",
    ]
    return found


def _precision(recipe: Recipe, machine: Machine) -> str:
    """``auto`` is bf16 where the card has it."""
    wanted = recipe.optim.precision
    if wanted == "auto":
        return "fp32" if machine.card.bf16_tflops is None else "bf16"
    return wanted if wanted == "fp32" else "bf16"


def _memory(
    recipe: Recipe,
    setup: Setup,
    parts: dict[str, int],
    grows: int,
    offer: Offer,
    precision: str,
    at_once: int,
) -> dict[str, Any]:
    """Of one GPU: its parts, whether they fit, and a micro batch that would.

    Args:
        grows: bytes of the parts that are of what is forwarded at once.
    """
    machine = offer.machine
    shards = machine.count if recipe.run.parallel == "fsdp" else 1
    for name in ("weights", "gradients_and_optimizer", "average"):
        parts[name] = -(-parts[name] // shards)
    if precision == "bf16":  # autocast keeps the weights that it cast
        numbers = sum(parameter.numel() for parameter in setup.model.parameters())
        parts["cast_weights"] = _HALF * numbers // shards
    parts["process"] = _CONTEXT
    total = sum(parts.values())
    there = machine.card.memory_gb * 1e9
    found: dict[str, Any] = {
        "gib": {
            **{name: round(value / 2**30, 3) for name, value in parts.items()},
            "total": round(total / 2**30, 3),
        },
        "gib_of_card": round(there / 2**30, 1),
        "fits": total <= there,
    }
    if total > there:
        found["advice"] = _smaller(recipe, parts, grows, there, at_once)
    return found


def _smaller(recipe: Recipe, parts: dict[str, int], grows: int, there: float, at_once: int) -> str:
    """The largest micro batch that fits, or what else makes it smaller."""
    rest = sum(parts.values()) - grows
    size = at_once
    while size > 1 and rest + grows * size / at_once > there:
        size = size // 2 if size % 2 == 0 else 1
    if rest + grows * size / at_once <= there:
        return f"optim.micro_batch={size} fits; a step then takes about a third longer"
    if recipe.run.parallel != "fsdp":
        return (
            "weights and optimiser do not fit: run.parallel=fsdp, adapt.kind: lora, or more memory"
        )
    return "weights and optimiser do not fit: more GPUs, adapt.kind: lora, or more memory"


def _short(value: float) -> float:
    """Four figures, since no more is known."""
    return float(f"{value:.4g}")
