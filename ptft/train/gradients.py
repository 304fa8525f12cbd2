"""The gradients of one batch, of any size on any memory (GradCache; Gao et al. 2021).

A contrastive loss needs the features of the whole batch at once, but not what the towers keep for
their backward pass. So, in three parts:

1. the features of all pairs, ``micro_batch`` at a time, without a graph;
2. the loss on them, and its gradients by the features, the logit scale and bias;
3. the towers again, a micro batch at a time, now with a graph, and back through each from the
   features' gradients.

The second pass draws the same random numbers as the first (dropout, patch dropout), so the
gradients are those of the whole batch. Of the last micro batch, which may be the only one, part 1
keeps the graph and part 3 only goes back through it. Memory holds one micro batch's activations and
the features, however large the batch; a step costs one forward pass more, about a third.

open_clip's accumulation instead lets every micro batch meet the cached others in a loss of its own,
which counts the gradient of the logit scale once a micro batch.

Texts are sorted by length before they are cut into micro batches, so that most are trimmed to less
than the longest of the batch; their features are put back in order. Texts and images of one pair
need not share a micro batch. Within one they go through the tower in groups of like length, where
that is cheaper (:mod:`ptft.train.batches`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ptft.data import Batch, KeptFeatures
from ptft.errors import TrainingError
from ptft.files.tensors import send
from ptft.objective import (
    Features,
    ObjectiveOutput,
    classify_loss,
    features_loss,
    needs_pictures,
    needs_text,
    views_loss,
)
from ptft.recipe import (
    ClassifyObjective,
    ClipObjective,
    DetectObjective,
    ObjectiveSection,
    OptimSection,
    SelfSupervisedObjective,
    SiglipObjective,
)
from ptft.train.batches import grouped_tokens, images_to_device, micro_batch
from ptft.train.boxes import batch_queries, boxes_loss
from ptft.train.cost.clock import PartClock
from ptft.train.device import RandomState, autocast
from ptft.train.parallel import Parallel
from ptft.train.teacher import Teacher

__all__ = ["Step", "loss_scaler"]


@dataclass(frozen=True)
class _Micro:
    """What is forwarded at once: rows of the rank's share. A classifier that reads texts takes the
    rows of ``texts``, their pictures included."""

    images: slice
    texts: Tensor


class Step:
    """Forward and backward of a rank's share of a batch; gradients stay on the parameters.

    Args:
        objective: what is learned.
        optim: its micro batch and precision.
        parallel: the model, alone or among ranks.
        scaler: of the loss (fp16), which multiplies the gradients; absent: as the precision wants.
        teacher: a model whose answers are learned too.
        class_weights: float (C,), of a classifier's samples; None: all weigh the same.
        clock: takes the seconds of the step's parts, for who measures one.

    Raises:
        RecipeError: the micro batch does not fit the rank's share or the model.
    """

    def __init__(
        self,
        objective: ObjectiveSection,
        optim: OptimSection,
        parallel: Parallel,
        *,
        scaler: torch.amp.GradScaler | None = None,
        teacher: Teacher | None = None,
        class_weights: Tensor | None = None,
        clock: PartClock | None = None,
    ) -> None:
        self.class_weights = class_weights
        self.teacher = teacher
        self.objective = objective
        self.precision = optim.precision
        self.parallel = parallel
        self.model = parallel.model
        self.scaler = scaler or loss_scaler(optim.precision, parallel.model.device)
        self.micro = micro_batch(optim, parallel.model, parallel.world.size)
        self.clock = clock

    def __call__(self, batch: Batch) -> ObjectiveOutput:
        """Add the gradients of the batch to the parameters'.

        Returns:
            The loss, without a graph: of all ranks where pairs are held against each other, of
            this rank's share where each is classified by itself.

        Raises:
            TrainingError: the data lacks captions or labels.
        """
        if isinstance(self.objective, ClassifyObjective):
            return self._classify(self.objective, batch)
        if isinstance(self.objective, DetectObjective):
            return self._detect(self.objective, batch)
        if isinstance(self.objective, SelfSupervisedObjective):
            return self._views(self.objective, batch)
        return self._contrast(self.objective, batch)

    def _contrast(
        self, objective: ClipObjective | SiglipObjective, batch: Batch
    ) -> ObjectiveOutput:
        micros = self._cut(batch)
        kept = len(micros) - 1  # of the last the graph stays, and is gone back through first

        # 1. the features of all pairs
        encoded: list[tuple[Tensor | None, Tensor | None]] = []
        drawn: list[RandomState] = []
        for number, micro in enumerate(micros):
            drawn.append(RandomState.now(self.model.device))
            with self.parallel.reduced(len(micros) == 1), torch.set_grad_enabled(number == kept):
                encoded.append(self._encode(batch, micro))
        after = RandomState.now(self.model.device)
        features = self._features(batch, micros, encoded)

        # 2. the loss on them. Wrappers average gradients over the ranks; these are to be summed.
        with self._part("loss"):
            output = features_loss(objective, features, self.parallel.world)
            if self.teacher is not None:
                output = self.teacher.contrast(
                    output,
                    features,
                    batch,
                    precision=self.precision,
                    micro=self.micro,
                    world=self.parallel.world,
                )
            self.scaler.scale(output.loss * self.parallel.world.size).backward()

        # 3. back through the towers, the longest texts first: what they free serves the shorter
        for number in reversed(range(len(micros))):
            micro, last = micros[number], number == 0
            with self.parallel.reduced(last):
                if number != kept:
                    drawn[number].restore(self.model.device)
                    encoded[number] = self._encode(batch, micro, again=True)
                with self._part("backward"):
                    self._back(features, micro, encoded[number], last)
            encoded[number] = (None, None)
        after.restore(self.model.device)
        return ObjectiveOutput(output.loss.detach(), output.scalars)

    def _singly(self, batch: Batch, answer: Callable[[_Micro], ObjectiveOutput]) -> ObjectiveOutput:
        """Of a loss in which samples do not meet: a mean over micro batches is the share's."""
        outputs: list[ObjectiveOutput] = []
        micros = self._cut(batch)
        for number, micro in enumerate(micros):
            with self.parallel.reduced(number == len(micros) - 1):
                output = answer(micro)
                with self._part("backward"):
                    self.scaler.scale(output.loss / len(micros)).backward()
            outputs.append(ObjectiveOutput(output.loss.detach(), output.scalars))
        loss = torch.stack([output.loss for output in outputs]).mean()
        names = outputs[0].scalars
        shown = {
            name: torch.stack([output.scalars[name] for output in outputs]).double().mean()
            for name in names
        }
        return ObjectiveOutput(loss, shown)

    def _classify(self, objective: ClassifyObjective, batch: Batch) -> ObjectiveOutput:
        def answer(micro: _Micro) -> ObjectiveOutput:
            rows = micro.texts if needs_text(objective) else micro.images
            labels = None if batch.labels is None else batch.labels[rows]
            with self._part("copy"):
                images, tokens = self._inputs(objective, batch, rows)
                labels = None if labels is None else send(labels, self.model.device)
            with self._part("forward"), autocast(self.precision, self.model.device):
                logits_bc, _ = self.parallel.forward(images, tokens, logits=True)
            with self._part("loss"):
                with autocast(self.precision, self.model.device):
                    scale, weights = self.model.logit_scale, self.class_weights
                    output = classify_loss(objective, logits_bc, labels, scale, weights)
                if self.teacher is not None:
                    output = self.teacher.classify(
                        output, logits_bc, batch, rows, precision=self.precision
                    )
            return output

        return self._singly(batch, answer)

    def _detect(self, objective: DetectObjective, batch: Batch) -> ObjectiveOutput:
        queries = batch_queries(self.model, objective, batch)

        def answer(micro: _Micro) -> ObjectiveOutput:
            with self._part("copy"):
                assert isinstance(batch.images, Tensor), "places have no kept features"
                images = images_to_device(batch.images[micro.images], self.model)
                targets = queries.targets(batch, micro.images, self.model.device)
                tokens = send(queries.tokens, self.model.device)
            with self._part("forward"), autocast(self.precision, self.model.device):
                logits, boxes = self.parallel.forward(
                    images, tokens, boxes=len(objective.templates)
                )
            with self._part("loss"):
                return boxes_loss(objective, logits, boxes, targets)

        return self._singly(batch, answer)

    def _views(self, objective: SelfSupervisedObjective, batch: Batch) -> ObjectiveOutput:
        def answer(micro: _Micro) -> ObjectiveOutput:
            with self._part("copy"):
                assert isinstance(batch.images, Tensor), "views have no kept features"
                images = images_to_device(batch.images[micro.images], self.model)
            with self._part("forward"), autocast(self.precision, self.model.device):
                views_bd, _ = self.parallel.forward(images)
            with self._part("loss"):
                return views_loss(objective, views_bd)

        return self._singly(batch, answer)

    def _inputs(
        self, objective: ClassifyObjective, batch: Batch, rows: slice | Tensor
    ) -> tuple[Tensor | KeptFeatures | None, list[Tensor | KeptFeatures] | None]:
        """What a classifier reads of some rows; with texts these are in order of their lengths."""
        images = tokens = None
        if needs_pictures(objective) and batch.images is not None:
            images = images_to_device(batch.images[rows], self.model)
        if needs_text(objective) and batch.tokens is not None:
            tokens = grouped_tokens(batch.tokens[rows], self.model)
        return images, tokens

    def _cut(self, batch: Batch) -> list[_Micro]:
        """Micro batches: images in their order, texts by length where short ones are trimmed."""
        texts = torch.arange(len(batch))
        if isinstance(batch.tokens, Tensor):
            lengths = self.model.spec.tokenizer.lengths(batch.tokens.numpy())
            texts = torch.from_numpy(lengths).argsort(stable=True)
        return [
            _Micro(slice(start, start + self.micro), texts[start : start + self.micro])
            for start in range(0, len(batch), self.micro)
        ]

    def _encode(
        self, batch: Batch, micro: _Micro, *, again: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Embeddings of a micro batch; the second time, of the towers that learn alone."""
        if batch.tokens is None or batch.caption_ids is None:
            kind = self.objective.kind
            raise TrainingError(f"objective.kind: {kind!r} needs captions; the data has none")
        assert batch.images is not None, "pairs have pictures"
        images = tokens = None
        with self._part("again" if again else "copy"):
            if not (again and _is_fixed(self.model.image)):
                images = images_to_device(batch.images[micro.images], self.model)
            if not (again and _is_fixed(self.model.text)):
                tokens = grouped_tokens(batch.tokens[micro.texts], self.model)
        with (
            self._part("again" if again else "forward"),
            autocast(self.precision, self.model.device),
        ):
            return self.parallel.forward(images, tokens)

    def _part(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self.clock is None else self.clock.part(name)

    def _features(
        self, batch: Batch, micros: list[_Micro], encoded: list[tuple[Tensor | None, Tensor | None]]
    ) -> Features:
        """The whole share's, in the batch's order, as leaves that take gradients."""
        assert batch.caption_ids is not None
        image_bd = torch.cat([image for image, _ in encoded if image is not None])
        text_bd = torch.cat([text for _, text in encoded if text is not None])
        places = torch.cat([micro.texts for micro in micros]).argsort()
        bias = self.model.logit_bias
        return Features(
            _leaf(image_bd),
            _leaf(text_bd[send(places, text_bd.device)]),
            _leaf(self.model.logit_scale),
            None if bias is None else _leaf(bias),
            batch.caption_ids,
        )

    def _back(
        self,
        features: Features,
        micro: _Micro,
        encoded: tuple[Tensor | None, Tensor | None],
        last: bool,
    ) -> None:
        """One backward pass from a micro batch's embeddings; with the last, from the scale too."""
        texts = send(micro.texts, features.text_bd.device)
        ends: list[tuple[Tensor | None, Tensor | None]] = [
            (encoded[0], _gradient(features.image_bd)[micro.images]),
            (encoded[1], _gradient(features.text_bd)[texts]),
        ]
        if last:
            ends.append((self.model.logit_scale, features.log_scale.grad))
            if features.bias is not None:
                ends.append((self.model.logit_bias, features.bias.grad))
        learning = [(end, by) for end, by in ends if end is not None and end.requires_grad]
        if learning:
            tensors, gradients = zip(*learning, strict=True)
            torch.autograd.backward(tensors, gradients)


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """What keeps the gradients of fp16 from vanishing; in any other precision it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def _is_fixed(tower: nn.Module) -> bool:
    return not tower.training and not any(part.requires_grad for part in tower.parameters())


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
