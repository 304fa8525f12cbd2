"""What a run starts with: device, model and data."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptft.data import SampleSet, open_split, open_val
from ptft.data.checks.check import check_captions, check_classes
from ptft.data.checks.marked import box_classes, check_counted
from ptft.data.checks.names import odd_names
from ptft.data.reading.features import FeatureFile, TextFeatures
from ptft.data.reading.loader import worker_count
from ptft.data.sample import with_labels
from ptft.data.sources.class_captions import ClassCaptions
from ptft.data.sources.two_views import TwoViews
from ptft.distributed import ALONE, World
from ptft.errors import ModelError, RecipeError, SampleError, TrainingError
from ptft.evaluate import add_cache, fit_bias, probe_head
from ptft.evaluate.figures import count_cut
from ptft.model import (
    DualEncoder,
    active_batch_norm,
    apply_adapt,
    build_model,
    init_head,
    set_patch_dropout,
)
from ptft.model.spec import load_spec
from ptft.model_source import fetch_source, model_folder
from ptft.objective import check_widths, needs_text
from ptft.optim import total_samples
from ptft.preprocess import TextTokenizer
from ptft.preprocess.decoding import Reading
from ptft.recipe import (
    ClassifyObjective,
    ClipObjective,
    DetectObjective,
    Recipe,
    RunSection,
    SelfSupervisedObjective,
    SiglipObjective,
    TipAdapterAdapt,
    usual_nms,
)
from ptft.recipe.labels import learned_data
from ptft.recipe.objective import learns_classes
from ptft.train.class_weights import class_weights
from ptft.train.prior import put_detector
from ptft.train.self_training import with_pseudo_labels
from ptft.train.teacher import Teacher, load_teacher

__all__ = ["Setup", "choose_device", "cut_notes", "keep_reading", "set_up"]

_LOOKED = 1024  # samples whose captions are looked at for what is cut
_SHOWN = 80  # characters of a caption


@dataclass(frozen=True)
class Setup:
    """A model that is ready to learn, what it learns from, and what of it learns (in words).

    Attributes:
        notes: facts about how it will run, one line each, for the report and the run's page.
        image_features, text_features: what locked towers make of the samples, where it is kept.
        teacher: a model whose answers are learned too.
        random_head: whether a classifier's head was drawn at random just now.
        class_weights: of a classifier's samples, float (C,) on the device; None: all weigh the
            same.
    """

    model: DualEncoder
    samples: SampleSet
    learns: str
    notes: tuple[str, ...] = ()
    image_features: FeatureFile | None = None
    text_features: TextFeatures | None = None
    teacher: Teacher | None = None
    random_head: bool = False
    class_weights: Tensor | None = None

    @property
    def steps(self) -> bool:
        """Whether anything learns by steps; a training-free adapter is complete as it is."""
        return any(parameter.requires_grad for parameter in self.model.parameters())

    @property
    def kept(self) -> dict[str, FeatureFile]:
        """Towers whose kept features are read in place of running them, and where these are."""
        text = None if self.text_features is None else self.text_features.file
        given = {"image": self.image_features, "text": text}
        return {tower: file for tower, file in given.items() if file is not None}


def set_up(recipe: Recipe, device: torch.device, world: World = ALONE) -> Setup:
    """Build or load the model, open the training set, put a head on, lock what does not learn.

    Raises:
        DataError, ModelError: what the recipe names cannot be read or does not fit.
    """
    model = build_model(recipe.model, recipe.init, recipe.objective, seed=recipe.seed)
    check_widths(recipe.objective, model.spec.embed_dim)
    labelled = open_split(learned_data(recipe), "train", seed=recipe.seed)
    told: list[str] = []
    if learns_classes(recipe.objective):
        labelled, told = with_labels(labelled)
    samples = labelled
    if recipe.self_train is not None:
        samples, more = with_pseudo_labels(recipe, labelled, device)
        told += more
    if isinstance(recipe.objective, DetectObjective):
        check_counted(recipe, box_classes(samples))
        nms = usual_nms(recipe.objective, recipe.evaluate)
        put_detector(model.to(device), samples, recipe.objective, seed=recipe.seed, nms=nms)
    elif (
        isinstance(recipe.objective, ClipObjective | SiglipObjective) and recipe.objective.templates
    ):
        samples = ClassCaptions(samples, recipe.objective.templates)
        model.spec = model.spec.with_(  # what it learns to tell apart, for who serves it
            classes=tuple(samples.classes or ()), templates=samples.templates
        )
    elif isinstance(recipe.objective, SelfSupervisedObjective):
        samples = _paired(samples, world)
    check_captions(samples, recipe.objective)
    random_head, begun = _begin_head(recipe, model, samples, labelled, device)
    model = model.to(device)
    model.image.to(memory_format=model.memory_format)
    remembered = []
    if isinstance(recipe.adapt, TipAdapterAdapt):
        remembered.append(_remember(recipe, recipe.adapt, model, samples))
    learns = apply_adapt(model, recipe.adapt, recipe.objective, seed=recipe.seed)
    _refuse_lone_samples(recipe, model, world)
    steps = total_samples(recipe.optim, len(samples)) // recipe.optim.global_batch
    readers = max(1, worker_count(recipe.run.workers, samples, steps, world.size))
    notes = [*told, *begun, *remembered, *samples.notes(world.size * readers)]
    notes += odd_names(samples.classes or ())
    if needs_text(recipe.objective):
        notes += cut_notes(samples, model.spec.tokenizer, stops=model.spec.text_stops)
    if recipe.augment.patch_dropout:
        notes.append(set_patch_dropout(model, recipe.augment.patch_dropout))
    teacher = None if recipe.distill is None else load_teacher(recipe, model)
    return Setup(
        model,
        samples,
        learns,
        tuple(notes),
        teacher=teacher,
        random_head=random_head,
        class_weights=_class_weights(recipe, samples, device),
    )


def cut_notes(samples: SampleSet, tokenizer: TextTokenizer, *, stops: bool) -> list[str]:
    """What of a training set's captions will be cut short, judged by samples spread evenly."""
    if samples.in_order:
        return []
    texts: list[str] = []
    for index in np.linspace(0, len(samples) - 1, min(_LOOKED, len(samples))).astype(int):
        try:
            texts += samples.captions(int(index))
        except SampleError:
            continue  # counted and named as it is read
    early, long = count_cut(texts, tokenizer, stops=stops)
    notes = []
    if early[0]:
        notes.append(
            f"{early[0]:,} of {len(texts):,} captions looked at end early, at a special token that "
            f"they spell out: {early[1][:_SHOWN]!r}"
        )
    if long[0]:
        notes.append(
            f"{long[0]:,} of {len(texts):,} captions looked at are cut after "
            f"{tokenizer.context_length} tokens: {long[1][:_SHOWN]!r}"
        )
    return notes


def _begin_head(
    recipe: Recipe,
    model: DualEncoder,
    samples: SampleSet,
    labelled: SampleSet,
    device: torch.device,
) -> tuple[bool, list[str]]:
    """Put a classifier's head on.

    Args:
        labelled: of the samples, those that a probe is fitted to.

    Returns:
        Whether its rows were drawn at random, and what there is to say of it.
    """
    objective, before = recipe.objective, model.head
    if not isinstance(objective, ClassifyObjective):
        return False, []
    check_classes(recipe, samples.classes or ())
    several, workers = samples.label_sets is not None, recipe.run.workers
    random_head = init_head(
        model,
        samples.classes,
        objective,
        seed=recipe.seed,
        fit=lambda: probe_head(
            model.to(device), labelled, seed=recipe.seed, workers=workers, reads=objective.reads
        ),
        many=several,
    )
    if objective.calibrate:  # at the end of the run would be late to find it missing
        open_val(recipe.data, None, seed=recipe.seed, classes=samples.classes)
    if several and model.head is not before:
        return random_head, [fit_bias(model.to(device), samples, workers=workers)]
    return random_head, []


def _paired(samples: SampleSet, world: World) -> SampleSet:
    """Every picture twice in a row.

    Raises:
        RecipeError: among ranks, which would each hold their own views against each other.
    """
    if world.size > 1:
        raise RecipeError(
            f"objective.kind: 'self_supervised' on {world.size} ranks: the pictures of a batch are "
            "held against each other; allowed: one process"
        )
    return TwoViews(samples)


def _class_weights(recipe: Recipe, samples: SampleSet, device: torch.device) -> Tensor | None:
    if not isinstance(recipe.objective, ClassifyObjective):
        return None
    counted = recipe.objective.class_weights == "balanced"
    counts = samples.class_counts() if counted else None
    told = None
    if samples.label_sets is not None and (labels := samples.labels()) is not None:
        told = int((labels >= 0).sum())
    found = class_weights(recipe.objective, samples.classes or (), counts, told)
    return None if found is None else found.to(device)


def keep_reading(model: DualEncoder, run: Path, world: World = ALONE) -> None:
    """Read pictures as the newest checkpoint of ``run`` does, if the first rank has one: a run that
    began before models said how they read goes on as it began."""

    def saved() -> Reading | None:
        try:
            return load_spec(model_folder(fetch_source(run))).preprocess.reading
        except ModelError:  # none yet: it begins anew
            return None

    if (reading := world.on_first(saved)) is not None:
        preprocess = replace(model.spec.preprocess, reading=reading)
        model.spec = model.spec.with_(preprocess=preprocess)


def _refuse_lone_samples(recipe: Recipe, model: DualEncoder, world: World) -> None:
    """Refuse to normalise a sample by its own statistics, which would leave nothing of it.

    Raises:
        RecipeError: a batch norm that learns would see one sample at once.
    """
    size = recipe.optim.micro_batch or recipe.optim.global_batch // world.size
    learns = any(parameter.requires_grad for parameter in model.parameters())
    norm = active_batch_norm(model) if learns and size == 1 else None
    if norm is not None:
        key = "micro_batch" if recipe.optim.micro_batch else "global_batch"
        ranks = f" over {world.size} ranks" if world.size > 1 else ""
        raise RecipeError(
            f"optim.{key}: {getattr(recipe.optim, key)}{ranks}: {norm} is a batch norm, which has "
            "no statistics of one sample; allowed: 2 or more at once, adapt.freeze_norm: true, or "
            "adapt.lock of that tower"
        )


def _remember(
    recipe: Recipe, section: TipAdapterAdapt, model: DualEncoder, samples: SampleSet
) -> str:
    val = None
    if section.chooses:
        classes = samples.classes
        val = open_val(recipe.data, section.val_limit, seed=recipe.seed, classes=classes)
    return add_cache(model, section, samples, val, workers=recipe.run.workers)


def choose_device(section: RunSection) -> torch.device:
    """The device that ``run.device`` means here.

    Raises:
        TrainingError: ``cuda`` where torch sees no GPU.
    """
    wanted: str = section.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device: 'cuda': torch sees no GPU here; allowed: cpu, auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
