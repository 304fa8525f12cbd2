"""Features of locked towers, computed once and read from the disk from then on.

A tower in ``adapt.lock`` (or under a probe) gives the same features in every pass over the data, as
long as chance does not change its pixels. They are kept in float32 in a folder whose name is the
digest of all that decides them: the trunk's weights (the projection learns, and is applied to what
is read), the architecture, the preprocessing or tokenizer, the precision, the kind of device, and
the set's samples. A run with them and one without learn the same, within rounding.

They are computed in blocks of fixed rows, so that they come out the same each time; a killed run
goes on with the blocks that are missing, and several processes share the work and the folder.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from torch import Tensor

from ptft.data import SampleSet
from ptft.data.cache_folder import CacheFolder
from ptft.data.hashing import digest_of, text_id
from ptft.data.reading.features import FeatureFile, TextFeatures
from ptft.data.reading.loader import pixel_blocks
from ptft.distributed import World
from ptft.errors import ModelError, RecipeError, SampleError
from ptft.model import DualEncoder
from ptft.model.towers import trunk_digest, trunk_learns
from ptft.recipe import (
    AugmentSection,
    DetectObjective,
    ObjectiveSection,
    Recipe,
    RunSection,
    read_towers,
)
from ptft.train.batches import images_to_device, tokens_to_device
from ptft.train.device import autocast
from ptft.train.setup import Setup

__all__ = ["keep_features"]

_FORMAT = 1  # of the folders; part of their names
_BLOCK = {"image": 64, "text": 256}  # samples that are computed and written together
_NAMES = re.compile(r"(image|text)-[0-9a-f]{24}|\.(image|text)-[0-9a-f]{24}\.\d+\.partial")
_ROOM = 0.5  # of the free disk that ``auto`` may fill
_SAID_EVERY = 10.0  # seconds
_ARCHITECTURE = ("vision_cfg", "text_cfg", "quick_gelu")

Say = Callable[[str], None]
_Computed = tuple[range, Tensor, dict[int, SampleError]]
"""A block, the rows of what of it could be read, and why the rest could not."""


@dataclass(frozen=True)
class _Run:
    """A run: its recipe and model, the training set, the processes, where lines for people go."""

    recipe: Recipe
    model: DualEncoder
    samples: SampleSet
    world: World
    say: Say


@dataclass(frozen=True)
class _Plan:
    """What decides the features of a tower, and where they lie."""

    tower: str
    folder: Path
    width: int
    about: dict[str, Any] = field(default_factory=dict)


def keep_features(
    recipe: Recipe,
    setup: Setup,
    *,
    total: int,
    world: World,
    say: Say,
    towers: Iterable[str] | None = None,
) -> Setup:
    """Decide which locked towers' features are kept, compute those that are missing, and give the
    setup that reads them.

    Args:
        recipe: its precision is settled.
        setup: with the model locked as ``adapt`` says, on its device.
        total: samples of the whole run.
        world: the processes of the run; each computes its share.
        say: takes lines for people about work that takes a while.
        towers: what was decided when the run began; None: decide now.

    Raises:
        RecipeError: ``run.features: on`` where it would not be exact.
        DataError: the disk is full.
    """
    run = _Run(recipe, setup.model, setup.samples, world, say if world.first else _silent)
    notes: list[str] = []
    if towers is None:
        towers, notes = world.on_first(lambda: _decide(run, total))
    if "image" in towers:
        setup = replace(setup, image_features=_image_file(_plan("image", run), run))
    if "text" in towers:
        setup = replace(setup, text_features=TextFeatures(_text_file(_plan("text", run), run)))
    for name, kept in setup.kept.items():
        notes.append(
            f"features of the locked {name} tower are read from {kept.folder}: {kept.size}"
        )
    return replace(setup, notes=(*setup.notes, *notes))


def _decide(run: _Run, total: int) -> tuple[list[str], list[str]]:
    """The towers whose features are kept, and why those of the other locked ones are not."""
    wanted = run.recipe.run.features
    chosen: list[str] = []
    reasons: list[str] = []
    if wanted == "off":
        return [], []
    for tower in _locked(run.recipe.objective, run.model):
        reason = _not_exact(tower, run)
        if reason is None and wanted == "auto":
            reason = _not_worth_it(_plan(tower, run), run.samples, total)
        if reason is None:
            chosen.append(tower)
        else:
            reasons.append(f"features of the locked {tower} tower are not kept: {reason}")
    if wanted == "on" and not chosen:
        why = "; ".join(reasons) or "no tower that the objective reads is locked"
        raise RecipeError(f"run.features: 'on': {why}; allowed: auto, off")
    return chosen, reasons


def _locked(objective: ObjectiveSection, model: DualEncoder) -> list[str]:
    """Towers that the objective reads and whose trunk does not learn; a detector reads places of a
    picture and not its features."""
    if isinstance(objective, DetectObjective):
        return []
    return [
        name
        for name in read_towers(objective)
        if name in model.locked and not trunk_learns(model.get_submodule(name))
    ]


def _not_exact(tower: str, run: _Run) -> str | None:
    """Why kept features would not be those of each pass, or None."""
    if run.recipe.distill is not None:
        return "the teacher of distill reads the samples themselves"
    if run.samples.fingerprint() is None:
        return "the data is streamed, and could change without a sign"
    if tower == "image":
        chance = _chance(run.recipe.augment)
        if chance is not None:
            return f"{chance}, so every pass sees other pixels"
    try:
        _width(tower, run.model)
    except ModelError as error:
        return str(error)
    return None


def _chance(section: AugmentSection) -> str | None:
    if section.crop_scale != (1.0, 1.0):
        return f"augment.crop_scale is {list(section.crop_scale)} and not [1, 1]"
    if section.flip:
        return "augment.flip is on"
    if section.colour_jitter > 0:
        return f"augment.colour_jitter is {section.colour_jitter:g} and not 0"
    return None


def _not_worth_it(plan: _Plan, samples: SampleSet, total: int) -> str | None:
    if plan.folder.is_dir():
        return None
    if total <= len(samples):
        return "the run sees each sample once"
    rows = len(samples)  # of captions there are more, at a few bytes each
    needed, free = rows * plan.width * 4, FeatureFile.free(plan.folder.parent)
    if needed > _ROOM * free:
        return (
            f"they need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free in "
            f"{plan.folder.parent}; run.cache names another folder"
        )
    return None


def _plan(tower: str, run: _Run) -> _Plan:
    model, spec = run.model, run.model.spec
    reads: Any = (
        spec.preprocess.to_config()
        if tower == "image"
        else (spec.tokenizer.kwargs(), digest_of(spec.tokenizer.json))
    )
    about = {
        "format": _FORMAT,
        "tower": tower,
        "model": spec.name,
        "weights": trunk_digest(model.get_submodule(tower)),
        "architecture": digest_of(
            json.dumps({k: spec.config.get(k) for k in _ARCHITECTURE}, sort_keys=True),
            json.dumps(dict(spec.image_args), sort_keys=True),
            spec.timm_input_size,
        ),
        "reads": reads,
        "precision": run.recipe.optim.precision,
        "device": model.device.type,
        "samples": run.samples.fingerprint(),
    }
    key = digest_of(json.dumps(about, sort_keys=True))[:24]
    return _Plan(tower, _cache(run.recipe.run) / f"{tower}-{key}", _width(tower, model), about)


def _cache(section: RunSection) -> Path:
    if section.cache is not None:
        return Path(section.cache).expanduser()
    return platformdirs.user_cache_path("ptft") / "features"


def _ready(plan: _Plan) -> None:
    """The folder of a tower's folder, this user's alone. Raises DataError where it is not."""
    CacheFolder(plan.folder.parent, kind="features", names=_NAMES, key="run.cache").ready()


@torch.no_grad()
def _width(tower: str, model: DualEncoder) -> int:
    """F of a tower. Raises ModelError where it has no features of one row a sample."""
    if tower == "image":
        pixels = torch.zeros(1, *model.spec.preprocess.size, 3, dtype=torch.uint8)
        return model.image_trunk(images_to_device(pixels, model)).shape[1]
    tokens = torch.from_numpy(model.spec.tokenizer([""]))
    return model.text_trunk(tokens.to(model.device)).shape[1]


def _image_file(plan: _Plan, run: _Run) -> FeatureFile:
    """A row a sample, filled."""
    model, count = run.model, len(run.samples)
    _ready(plan)
    file = FeatureFile.create(
        plan.folder, count=count, width=plan.width, block=_BLOCK["image"], about=plan.about
    )

    def compute(missing: list[range]) -> Iterator[_Computed]:
        for pixels in pixel_blocks(
            run.samples,
            missing,
            preprocess=model.spec.preprocess,
            augment=run.recipe.augment,
            workers=run.recipe.run.workers,
        ):
            rows = torch.zeros(0, plan.width)
            if len(pixels.images):
                rows = model.image_trunk(images_to_device(pixels.images, model))
            yield pixels.indices, rows, pixels.unreadable

    _fill(plan, file, run, compute)
    return file


def _text_file(plan: _Plan, run: _Run) -> FeatureFile:
    """A row a caption, filled."""
    model = run.model
    _ready(plan)
    if plan.folder.is_dir() and not FeatureFile(plan.folder).missing():
        texts = {}
    else:
        texts = _texts(run.samples)
    ids = np.array(sorted(texts), np.int64)
    file = FeatureFile.create(
        plan.folder,
        count=len(ids),
        width=plan.width,
        block=_BLOCK["text"],
        about=plan.about,
        ids=ids,
    )

    def compute(missing: list[range]) -> Iterator[_Computed]:
        for block in missing:
            tokens = model.spec.tokenizer([texts[int(ids[place])] for place in block])
            yield block, model.text_trunk(tokens_to_device(torch.from_numpy(tokens), model)), {}

    _fill(plan, file, run, compute)
    return file


def _fill(
    plan: _Plan,
    file: FeatureFile,
    run: _Run,
    compute: Callable[[list[range]], Iterator[_Computed]],
) -> None:
    """Compute and write this process's share of the missing blocks; wait for the others'."""
    part = run.world.rank, run.world.size
    what = f"features of the locked {plan.tower} tower"
    with file.lock(*part) if file.missing(*part) else nullcontext():
        missing = file.missing(*part)
        total, done, said = sum(map(len, missing)), 0, time.monotonic()
        if missing:
            run.say(f"{what}: computing {total:,} of {file.size} in {file.folder}")
        with torch.no_grad(), autocast(run.recipe.optim.precision, run.model.device):
            for block, rows, unreadable in compute(missing):
                file.write(block, rows.float().cpu().numpy(), unreadable)
                done += len(block)
                if time.monotonic() - said > _SAID_EVERY:
                    said = time.monotonic()
                    run.say(f"{what}: {done:,} of {total:,}")
    run.world.barrier()


def _texts(samples: SampleSet) -> dict[int, str]:
    """Every caption of a set by its number."""
    return {text_id(text): text for text in _captions(samples)}


def _captions(samples: SampleSet) -> Iterator[str]:
    for index in range(len(samples)):
        try:
            yield from samples.captions(index)
        except SampleError:
            continue  # reading the sample says so


def _silent(_line: str) -> None:
    pass
