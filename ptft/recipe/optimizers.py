"""Optimisers by name, as timm registers them, read from its sources without importing it.

timm takes torch and torchvision with it (seconds), and a misspelt name should be told at once.
"""

import ast
import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ptft.errors import RecipeError, suggest

__all__ = ["ADAMW", "LBFGS", "TimmOptimizer", "find_optimizer", "timm_optimizers"]

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
