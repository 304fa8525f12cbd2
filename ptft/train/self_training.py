"""What a self-trained run learns from: the labelled samples, and pictures that a teacher labels."""

import torch

from ptft.data import SampleSet, open_split
from ptft.data.sources.mixture import Mixture
from ptft.data.sources.pseudo_labels import PseudoLabelled, surest
from ptft.errors import DataError, ModelError
from ptft.evaluate.embed import embed_split, pictures_at_once
from ptft.model import DualEncoder, load_model
from ptft.recipe import Recipe, SelfTrainSection
from ptft.recipe.data import without_captions

__all__ = ["unlabelled_pictures", "with_pseudo_labels"]


def unlabelled_pictures(recipe: Recipe) -> SampleSet | None:
    """The set of ``data.unlabelled``; None where a recipe has none.

    Raises:
        DataError: as opening it does.
    """
    section = getattr(recipe.data, "unlabelled", None)
    if section is None:
        return None
    section = without_captions(section)
    return open_split(section, "train", seed=recipe.seed, key="data.unlabelled")


def with_pseudo_labels(
    recipe: Recipe, labelled: SampleSet, device: torch.device
) -> tuple[SampleSet, list[str]]:
    """Mix a labelled training set with the pictures of ``data.unlabelled`` that the teacher of
    ``self_train`` is surest of.

    All follows from the recipe and the teacher's weights, so that a run that goes on has the same
    labels as before.

    Returns:
        The mixture; and what the teacher said, for people.

    Raises:
        DataError: no picture can be read, or the labelled set has no classes.
        ModelError: the teacher has no head for these classes.
    """
    section, pictures = recipe.self_train, unlabelled_pictures(recipe)
    assert section is not None and pictures is not None, "only whoever names a teacher has them"
    classes = list(labelled.classes or [])
    if not classes:
        raise DataError("self_train: data.train has no classes; see data.label")
    teacher = load_model(section.from_).to(device)
    order = _class_order(teacher, section, classes)
    found = embed_split(
        teacher,
        pictures,
        batch=pictures_at_once(teacher),
        workers=recipe.run.workers,
        what="unlabelled pictures",
    )
    if not len(found.indices):
        raise DataError("data.unlabelled.train: no picture can be read")
    with torch.no_grad():
        logits_nc = teacher.class_logits(found.inputs_nw.to(device))[:, order]
    sure_n, said_n = (part.cpu().numpy() for part in logits_nc.double().softmax(dim=1).max(dim=1))
    kept = surest(said_n, sure_n, section.keep)
    pseudo = PseudoLabelled(pictures, found.indices.numpy()[kept], said_n[kept], classes)
    never = len(classes) - len(set(said_n.tolist()))
    note = (
        f"self-training: {len(kept):,} of {len(pictures):,} unlabelled pictures have a label of "
        f"the teacher, the surest {section.keep:.0%} of each class; it is sure of these with "
        f"{sure_n[kept].mean():.0%} on average"
    )
    note += f"; it said {never:,} of {len(classes):,} classes of none" if never else ""
    note += f"; {len(found.skipped):,} could not be read" if found.skipped else ""
    weights = [1 - section.share, section.share]
    mixture = Mixture([labelled, pseudo], ["", "unlabelled"], weights, "self_train.share")
    return mixture, [note]


def _class_order(teacher: DualEncoder, section: SelfTrainSection, classes: list[str]) -> list[int]:
    """The teacher's own numbers of the classes."""
    own = teacher.spec.classes
    if teacher.head is None or teacher.spec.reads != "image" or sorted(own) != sorted(classes):
        raise ModelError(
            f"self_train.from: {section.from_}: it has no head on pictures for the "
            f"{len(classes):,} classes of data.train; allowed: a classifier of them"
        )
    return [own.index(name) for name in classes]
