"""The optim section of a recipe, and optimisers by name, as timm registers them.

timm's sources are read without importing it: it takes torch and torchvision with it (seconds), and
a misspelt name should be told at once.
"""

import ast
import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from ptft.errors import RecipeError, suggest
from ptft.recipe.section import Section

__all__ = ["ADAMW", "LBFGS", "OptimSection", "TimmOptimizer", "find_optimizer", "timm_optimizers"]

ADAMW = "adamw"  # torch's own, fused
LBFGS = "lbfgs"  # torch's own, too; every other name is timm's
_FACTORY = ("optim", "_optim_factory.py")
_PACKAGES = {"apex": "NVIDIA's apex", "bitsandbytes": "bitsandbytes"}


@dataclass(frozen=True)
class TimmOptimizer:
    """What timm says of an optimiser.

    Attributes:
        betas: whether it takes ``betas``, a pair.
        eps: whether it takes ``eps``.
        refused: why a run cannot use it; None where it can.
    """

    name: str
    betas: bool
    eps: bool
    refused: str | None = None


def find_optimizer(name: str) -> TimmOptimizer:
    """The optimiser of a name.

    Raises:
        RecipeError: timm has none of that name, or it cannot be resumed exactly.
    """
    if name == LBFGS:
        return TimmOptimizer(LBFGS, betas=False, eps=False)
    known = timm_optimizers()
    if name in known:
        found = known[name]
        if found.refused is not None:
            raise RecipeError(f"optim.optimizer: {name!r}: {found.refused}")
        return found
    if name.startswith("lookahead_"):
        raise RecipeError(
            f"optim.optimizer: {name!r}: lookahead keeps a second copy of the weights beside its "
            f"optimiser; allowed: {name.removeprefix('lookahead_')!r}, and optim.ema for an average"
        )
    allowed = [LBFGS, *(key for key, one in known.items() if one.refused is None)]
    raise RecipeError(f"optim.optimizer: {name!r}: not one of timm's; {suggest(name, allowed)}")


@cache
def timm_optimizers() -> dict[str, TimmOptimizer]:
    """Every optimiser that timm registers, with those that ptft refuses."""
    found: dict[str, TimmOptimizer] = {}
    aliases: dict[str, str] = {}
    for call in ast.walk(ast.parse(_source())):
        if not isinstance(call, ast.Call):
            continue
        if isinstance(call.func, ast.Name) and call.func.id == "OptimInfo":
            one = _read_info(call)
            found[one.name] = one
        elif isinstance(call.func, ast.Attribute) and call.func.attr == "register_alias":
            alias, target = call.args
            if isinstance(alias, ast.Constant) and isinstance(target, ast.Constant):
                aliases[str(alias.value)] = str(target.value)
    found.update({alias: replace(found[one], name=alias) for alias, one in aliases.items()})
    return dict(sorted(found.items()))


def _source() -> str:
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise RecipeError("timm is not installed; run: pip install timm")
    return Path(spec.origin).parent.joinpath(*_FACTORY).read_text(encoding="utf-8")


def _read_info(call: ast.Call) -> TimmOptimizer:
    """``OptimInfo(name=..., opt_class=..., ...)``; the first two may stand without their names."""
    given = dict(zip(("name", "opt_class"), call.args, strict=False))
    given |= {word.arg: word.value for word in call.keywords if word.arg is not None}

    def value(key: str, default: object) -> object:
        node = given.get(key)
        return node.value if isinstance(node, ast.Constant) else default

    module = str(value("opt_class", "")).partition(".")[0]  # text only where another package has it
    name = str(value("name", ""))
    refused = None
    if module in _PACKAGES:
        refused = f"it is {_PACKAGES[module]}'s, whose state a checkpoint of ptft cannot hold"
    elif value("second_order", False):
        refused = "it needs gradients of gradients, which the training step does not make"
    elif name.startswith("kron"):
        refused = "it draws random numbers of its own, so that a resumed run would not be the same"
    betas = bool(value("has_betas", False)) and value("num_betas", 2) == 2
    return TimmOptimizer(name, betas, bool(value("has_eps", True)), refused)


Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class OptimSection(Section):
    """Optimiser, warm-up and schedule, counted in samples so that batch sizes compare."""

    optimizer: str = "adamw"
    """``adamw`` is torch's own, fused; any other is timm's of that name (``lion``, ``muon``,
    ``adafactor``, ``lamb``, ``sgd``, ``nadamw``, ...), as timm's factory makes it. ``lbfgs`` solves
    a small problem (a probe, a projection) without a rate to tune: a line search along each step's
    direction, for which a batch is the training set and nothing is drawn at random; ``lr`` is the
    length of its first trial as a share of the weights' norm."""
    optimizer_args: dict[str, bool | int | float | str | list[float]] = Field(default_factory=dict)
    """More keyword arguments of the optimiser (``momentum: 0.95``); not those with a key here."""
    lr: float = Field(default=5e-4, gt=0.0)
    """Learning rate at its highest, after the warm-up."""
    weight_decay: float = Field(default=0.2, ge=0.0)
    """Not applied to norms, biases, position and class embeddings, logit scale and bias."""
    betas: tuple[Beta, Beta] | None = None
    """Absent: CLIP's (0.9, 0.98) for ``adamw``, the optimiser's own otherwise."""
    eps: float | None = Field(default=None, gt=0.0)
    """Absent: CLIP's 1e-6 for ``adamw``, the optimiser's own otherwise."""
    global_batch: int = Field(default=256, ge=1)
    """Samples a step over all ranks."""
    micro_batch: PositiveInt | None = None
    """Samples that a rank forwards at once: memory holds the activations of so many, however large
    the batch, for a second forward pass (GradCache). The gradients are the whole batch's. Divides
    the rank's share of ``global_batch``; absent: all of it at once."""
    samples_seen: int | None = Field(default=None, ge=1)
    """Length of training; this or ``epochs``."""
    epochs: float | None = Field(default=None, gt=0.0)
    """Length of training in passes over the training set."""
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of training over which the learning rate rises from 0."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """After the warm-up: half a cosine down; constant, and a straight line down over the
    ``cooldown``; or the same with 1 - sqrt in place of the line (``wsd``, Hägele et al. 2024)."""
    cooldown: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of training at its end over which ``constant`` (absent: 0) and ``wsd`` (absent: 0.2)
    fall. A constant run has no horizon: ``init.from`` one of its checkpoints goes on from it."""
    final_lr: float = Field(default=0.0, ge=0.0, le=1.0)
    """Where the schedule falls to, as a share of the learning rate."""
    clip_grad_norm: float | None = Field(default=1.0, gt=0.0)
    """Largest L2 norm of the gradient; absent: not clipped."""
    stop_above: float | None = Field(default=3.0, gt=0.0)
    """The run stops, its batch named in ``bad_batch.json``, once the loss on average of about the
    last 20 steps lies this many nats above the lowest such average; null: never. Guessing costs
    log(global_batch) nats under ``clip``: give less than the default where batches are small."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto`` measures a forward and backward pass of the model on this device and takes the
    faster of fp32 and bf16; fp16 scales the loss."""
    lr_image: float | None = Field(default=None, gt=0.0)
    """Learning rate of the image tower, where it differs (a pretrained tower, say)."""
    lr_text: float | None = Field(default=None, gt=0.0)
    """Learning rate of the text tower, where it differs."""
    lr_head: float | None = Field(default=None, gt=0.0)
    """Learning rate of a class head or a detector's, where it differs: new weights on trained
    towers."""
    layer_decay: float | None = Field(default=None, gt=0.0, le=1.0)
    """Factor on the learning rate from each block of a tower to the one below it (BEiT's and MAE's
    fine-tuning: 0.65 to 0.9); projections, head and logit scale learn at the whole rate."""
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay, per step, of a moving average of what learns (0.9999 over 100,000 steps, 0.99 over
    1,000); at step t it is min(ema, t / (t + 9)). The average is what is evaluated and left as the
    run's model; checkpoints hold it beside the raw weights, from which training goes on."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> "OptimSection":
        cooldown = self.cooldown_share
        if self.schedule == "cosine" and self.cooldown is not None:
            raise ValueError(
                f"cooldown {self.cooldown} with schedule 'cosine', which falls all along; "
                "allowed: constant, wsd"
            )
        if self.schedule == "wsd" and cooldown == 0.0:
            raise ValueError("cooldown 0 with schedule 'wsd'; allowed: above 0, or 'constant'")
        if self.schedule == "constant" and cooldown == 0.0 and self.final_lr:
            raise ValueError(
                f"final_lr {self.final_lr} with a constant rate that never falls; "
                "allowed: with a cooldown above 0"
            )
        if self.warmup + cooldown > 1.0:
            raise ValueError(
                f"warmup {self.warmup} and cooldown {cooldown} are more than all of training; "
                "allowed: at most 1 together"
            )
        return self

    @model_validator(mode="after")
    def _line_search_fits(self) -> "OptimSection":
        if self.optimizer != LBFGS:
            return self
        wanted = {
            "weight_decay": 0.0,
            "clip_grad_norm": None,
            "precision": "fp32",
            "lr_image": None,
            "lr_text": None,
            "lr_head": None,
            "layer_decay": None,
        }
        for key, value in wanted.items():
            if (given := getattr(self, key)) != value:
                allowed = "null" if value is None else value
                raise ValueError(
                    f"{key} {given} with optimizer {LBFGS!r}, whose line search follows the loss's "
                    f"own gradient; allowed: {allowed}"
                )
        return self

    @property
    def cooldown_share(self) -> float:
        """``cooldown``, with the schedule's own in place of an absent one."""
        if self.cooldown is not None:
            return self.cooldown
        return 0.2 if self.schedule == "wsd" else 0.0  # 20 %: Hägele et al. 2024, figure 5

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> "OptimSection":
        if self.micro_batch is not None and self.global_batch % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide global_batch {self.global_batch}"
            )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "OptimSection":
        if (self.samples_seen is None) == (self.epochs is None):
            raise ValueError(
                f"give exactly one of samples_seen (here {self.samples_seen}) and epochs "
                f"(here {self.epochs}); null takes one back"
            )
        return self
