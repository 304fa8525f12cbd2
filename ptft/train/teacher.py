"""A teacher: a model that does not learn, and what it says about the student's batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.data import Batch
from ptft.data.reading.batch import Pixels, Tokens
from ptft.distill import Pairs, class_distillation, contrast_distillation, feature_distance
from ptft.distributed import ALONE, World
from ptft.errors import ModelError
from ptft.files.tensors import send
from ptft.model import DualEncoder, class_head, join_embeddings, load_model, rows_for
from ptft.objective import Features, ObjectiveOutput, needs_text
from ptft.preprocess import TextTokenizer
from ptft.recipe import ClassifyObjective, DistillSection, Recipe
from ptft.train.device import autocast

__all__ = ["Teacher", "load_teacher"]


@dataclass(frozen=True)
class Teacher:
    """A model in eval mode that takes no gradient.

    Attributes:
        model: on the student's device.
        section: the recipe's.
        order: int64 (C,), its own numbers of the student's classes, where classes are learned.
        tokenizer: its own, where the student's tokens are none that it knows.
    """

    model: DualEncoder
    section: DistillSection
    order: Tensor | None = None
    tokenizer: TextTokenizer | None = None

    def contrast(
        self,
        output: ObjectiveOutput,
        features: Features,
        batch: Batch,
        *,
        precision: str,
        micro: int,
        world: World = ALONE,
    ) -> ObjectiveOutput:
        """The objective's loss with the teacher's added.

        Args:
            output: of the objective alone.
            features: the student's, of this rank's share.
            batch: the same share.
            precision: that the teacher's towers run in, as the student's do.
            micro: pairs that the teacher is run on at once.
            world: the ranks.
        """
        student = Pairs(
            _single(features.image_bd), _single(features.text_bd), features.log_scale.exp()
        )
        teacher = self._pairs(batch, micro, precision, student.image_bd.dtype)
        section, loss = self.section, output.loss
        scalars = {**output.scalars, "objective_loss": loss.detach()}
        if section.weight:
            taught = contrast_distillation(
                student, teacher, temperature=section.temperature, world=world
            )
            scalars["distill_loss"] = taught.detach()
            loss = loss + section.weight * taught
        if section.features:
            apart = feature_distance(student, teacher, world)
            scalars["feature_distance"] = apart.detach()
            loss = loss + section.features * apart
        return ObjectiveOutput(loss, scalars)

    def classify(
        self,
        output: ObjectiveOutput,
        logits_bc: Tensor,
        batch: Batch,
        rows: slice | Tensor,
        *,
        precision: str,
    ) -> ObjectiveOutput:
        """The objective's loss with the teacher's added.

        Args:
            output: of the objective alone.
            logits_bc: the student's, of ``rows`` of the batch.
        """
        assert self.order is not None
        logits_bc = _single(logits_bc)
        with torch.no_grad():
            input_bw = self._inputs(batch, rows, precision)
            teaching_bc = self.model.class_logits(input_bw)[:, self.order].to(logits_bc.dtype)
        taught = class_distillation(logits_bc, teaching_bc, temperature=self.section.temperature)
        scalars = {"objective_loss": output.loss.detach(), "distill_loss": taught.detach()}
        loss = output.loss + self.section.weight * taught
        return ObjectiveOutput(loss, {**output.scalars, **scalars})

    def _inputs(self, batch: Batch, rows: slice | Tensor, precision: str) -> Tensor:
        """What the teacher's classifier reads of some rows (b, W)."""
        image_bd = text_bd = None
        if self.model.spec.reads != "text":
            image_bd = self._images(_pixels(batch)[rows], precision)
        if self.model.spec.reads != "image":
            text_bd = self._texts(_tokens(batch)[rows], precision)
        return join_embeddings(image_bd, text_bd, self.model.spec.reads)

    @torch.no_grad()
    def _pairs(self, batch: Batch, micro: int, precision: str, dtype: torch.dtype) -> Pairs:
        pixels, tokens = _pixels(batch), _tokens(batch)
        parts = [slice(start, start + micro) for start in range(0, len(tokens), micro)]
        images = torch.cat([self._images(pixels[part], precision) for part in parts])
        texts = torch.cat([self._texts(tokens[part], precision) for part in parts])
        return Pairs(images.to(dtype), texts.to(dtype), self.model.logit_scale.exp().to(dtype))

    def _images(self, pixels: Tensor, precision: str) -> Tensor:
        with autocast(precision, self.model.device):
            images = self.model.normalise(send(pixels, self.model.device))
            return _single(F.normalize(self.model.encode_image(images), dim=-1))

    def _texts(self, tokens: Tensor, precision: str) -> Tensor:
        tokenizer = self.model.spec.tokenizer
        with autocast(precision, self.model.device):
            trimmed = send(torch.from_numpy(tokenizer.trim(tokens.numpy())), self.model.device)
            return _single(F.normalize(self.model.encode_text(trimmed), dim=-1))


def load_teacher(recipe: Recipe, student: DualEncoder) -> Teacher:
    """The teacher that a recipe with ``distill`` names, on the student's device.

    Raises:
        ModelError: there is no such model, or it takes pictures of another size, or embeds in
            another width where features are compared.
        HubError: it cannot be fetched.
    """
    section = recipe.distill
    assert section is not None, "only whoever names a teacher has one"
    model = load_model(section.from_).to(student.device)
    ours, theirs = student.spec, model.spec
    if theirs.preprocess.size != ours.preprocess.size:
        raise ModelError(
            f"distill.from: {section.from_}: takes pictures of {_size(model)}, the student of "
            f"{_size(student)}; both see the same crop; allowed: a teacher of that size"
        )
    if section.features and theirs.embed_dim != ours.embed_dim:
        raise ModelError(
            f"distill.features: {section.features}: the teacher's embeddings have "
            f"{theirs.embed_dim} numbers, the student's {ours.embed_dim}; allowed: 0, or equal"
        )
    order = None
    if isinstance(recipe.objective, ClassifyObjective):
        order = _class_order(model, ours.classes, recipe.objective)
    own = needs_text(recipe.objective) and not _same_tokens(ours.tokenizer, theirs.tokenizer)
    return Teacher(
        model.eval().requires_grad_(False),
        section,
        order,
        theirs.tokenizer if own else None,
    )


def _class_order(
    model: DualEncoder, classes: Sequence[str], objective: ClassifyObjective
) -> Tensor:
    """The teacher's numbers of the student's classes; it is given a head of the classes' prompts
    where its own knows others, reads something else or is absent."""
    reads, templates = objective.reads, objective.templates
    alike = model.spec.reads == reads and sorted(model.spec.classes) == sorted(classes)
    if model.head is None or not alike:
        rows = rows_for(class_head(model, classes, templates), reads)
        model.set_head(rows, classes, templates, reads=reads)
    own = model.spec.classes
    return torch.tensor([own.index(name) for name in classes], device=model.device)


def _pixels(batch: Batch) -> Pixels:
    assert isinstance(batch.images, Tensor), "no features are kept of what a teacher reads"
    return batch.images


def _tokens(batch: Batch) -> Tokens:
    """The captions as the teacher reads them."""
    tokens = batch.tokens if batch.teacher_tokens is None else batch.teacher_tokens
    assert isinstance(tokens, Tensor), "no features are kept of what a teacher reads"
    return tokens


def _same_tokens(one: TextTokenizer, other: TextTokenizer) -> bool:
    """Whether two tokenizers give the same rows."""
    if one.json != other.json:
        return False
    return one.with_(trimmable=True).kwargs() == other.with_(trimmable=True).kwargs()


def _size(model: DualEncoder) -> str:
    height, width = model.spec.preprocess.size
    return f"{height}x{width} pixels"


def _single(tensor: Tensor) -> Tensor:
    """float32 where the precision is lower, for softmaxes."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
