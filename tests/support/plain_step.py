"""A step by autograd through the towers and the loss at once, which the real one is held against.

Shape letters: B batch, L text length.
"""

from dataclasses import dataclass

from torch import Tensor

from ptft.data import Batch
from ptft.errors import TrainingError
from ptft.model import DualEncoder
from ptft.objective import (
    Features,
    ObjectiveOutput,
    classify_loss,
    features_loss,
    needs_labels,
    needs_pictures,
    needs_text,
)
from ptft.recipe import ClassifyObjective, ObjectiveSection
from ptft.train.batches import images_to_device, tokens_to_device

__all__ = ["TrainBatch", "compute_objective", "to_device"]


@dataclass(frozen=True)
class TrainBatch:
    """One step's input, on the device.

    Attributes:
        images: float (B, 3, H, W), normalised; or None where the objective reads no pictures.
        tokens: int64 (B, L), or None where the objective reads no text.
        caption_ids: int64 (B,) or (B, 2), see ``pair_groups``; None without text.
        labels: int64 (B,), or None where the objective reads no classes.
    """

    images: Tensor | None
    tokens: Tensor | None
    caption_ids: Tensor | None
    labels: Tensor | None


def compute_objective(
    section: ObjectiveSection, model: DualEncoder, batch: TrainBatch
) -> ObjectiveOutput:
    """Run the model on a batch and take the section's loss.

    Raises:
        TrainingError: the batch lacks what the objective reads.
    """
    if isinstance(section, ClassifyObjective):
        images = batch.images if needs_pictures(section) else None
        tokens = batch.tokens if needs_text(section) else None
        logits_bc, _ = model(images, tokens, logits=True)
        return classify_loss(section, logits_bc, batch.labels, model.logit_scale)
    if batch.tokens is None or batch.caption_ids is None:
        raise TrainingError(f"objective.kind: {section.kind!r} needs captions; the data has none")
    image_bd, text_bd = model(batch.images, batch.tokens)
    return features_loss(
        section,
        Features(image_bd, text_bd, model.logit_scale, model.logit_bias, batch.caption_ids),
    )


def to_device(batch: Batch, model: DualEncoder, section: ObjectiveSection) -> TrainBatch:
    """A whole batch on the model's device."""
    labels = batch.labels if needs_labels(section) else None
    ids, device = batch.caption_ids, model.device
    return TrainBatch(
        images=None if batch.images is None else images_to_device(batch.images, model),
        tokens=None if batch.tokens is None else tokens_to_device(batch.tokens, model),
        caption_ids=None if ids is None else ids.to(device),
        labels=None if labels is None else labels.to(device),
    )
