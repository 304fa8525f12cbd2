"""The dual encoder: two towers, one joint space.

Shape letters: B batch, D width of the joint space, L text length in tokens, C classes, W width of
what a head reads: D, or 2D.

The towers are open_clip's own modules, so that an architecture is exactly open_clip's. What differs
is around them: the text tower takes any length where padding does not matter, and the logit scale
has shape (1,), since sharded training refuses parameters without a dimension.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptft.data.reading.batch import KeptFeatures
from ptft.errors import ModelError
from ptft.files.tensors import send
from ptft.model.classifier import Classifier
from ptft.model.detector import Detector, PlaceAnswers
from ptft.model.spec import ModelSpec
from ptft.model.towers import projection
from ptft.model.trunk import image_trunk, is_exported, project, text_trunk
from ptft.recipe import TOWERS_OF, Reads

__all__ = ["DualEncoder", "join_embeddings"]

CLIP_TEMPERATURE = 0.07  # at which CLIP starts (Radford et al. 2021)


class DualEncoder(nn.Module):
    """An image tower and a text tower that embed into one space.

    Attributes:
        image, text: the towers, projections included.
        logit_scale: (1,), log of 1/temperature.
        logit_bias: (1,), added to the scaled similarities (SigLIP), or None.
        head: of a classifier, on what ``spec.reads`` names; or None.
        detector: tells boxes; or None.
        spec: everything but the weights.
        locked: names of the towers that stay in eval mode.
    """

    image: Any  # open_clip's modules, which have no types
    text: Any
    logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None
    head: Classifier | None
    detector: Detector | None

    def __init__(
        self, image: nn.Module, text: nn.Module, spec: ModelSpec, *, logit_bias: float | None = None
    ) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / CLIP_TEMPERATURE)))
        bias = None if logit_bias is None else nn.Parameter(torch.full((1,), float(logit_bias)))
        self.register_parameter("logit_bias", bias)
        self.head = None
        self.detector = None
        self.spec = spec
        self.locked: frozenset[str] = frozenset()
        self.norms_frozen = False

    @property
    def memory_format(self) -> torch.memory_format:
        """How pictures and the image tower's weights lie best: channels-last for convolutions.

        Those are 1.2 to 1.7 times as fast on a CPU then, for the ResNets and MobileNets that were
        tried at 64 pixels. A vision transformer has one convolution and no use for it.
        """
        layers = sum(isinstance(module, nn.Conv2d) for module in self.image.modules())
        return torch.channels_last if layers > 1 else torch.contiguous_format

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, 3, H, W), as ``ImagePreprocess.normalise`` does it.

        They are laid out as :attr:`memory_format` says.
        """
        preprocess = self.spec.preprocess
        channels = pixels.permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)
        mean = send(torch.tensor(preprocess.mean), channels.device)[:, None, None]
        std = send(torch.tensor(preprocess.std), channels.device)[:, None, None]
        return (channels.float() / 255.0 - mean) / std

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised pixels, float (B, 3, H, W) -> embeddings (B, D), of any length."""
        pooled = self.image.training or is_exported()
        if pooled and type(self.image).__name__ == "VisionTransformer":
            return project(self.image, self.image_trunk(images))
        return self.image(images)

    def image_trunk(self, images: Tensor) -> Tensor:
        """Normalised pixels, float (B, 3, H, W) -> features (B, F) before the projection.

        Raises:
            ModelError: the tower's projection is given more than one row a picture.
        """
        return image_trunk(self.image, images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """int64 (B, L) -> embeddings (B, D), of any length.

        L is the context length, or less where ``spec.text_trimmable``: a causal tower that pools
        at the end mark never sees what comes after it, and a masked one ignores it.

        Raises:
            ModelError: fewer tokens than the context length, and padding matters.
        """
        return project(self.text, self.text_trunk(tokens))

    def text_trunk(self, tokens: Tensor) -> Tensor:
        """int64 (B, L) -> features (B, F) before the projection; L and errors as encode_text's."""
        if not self.spec.text_trimmable and tokens.shape[1] != self.context_length:
            raise ModelError(
                f"{tokens.shape[1]} tokens: the text tower of {self.spec.name} attends to padding "
                f"or pools at the last position; allowed: exactly {self.context_length}"
            )
        return text_trunk(self.text, tokens)

    def forward(
        self,
        images: Tensor | KeptFeatures | None = None,
        tokens: Tensor | KeptFeatures | Sequence[Tensor | KeptFeatures] | None = None,
        *,
        logits: bool = False,
        boxes: int = 0,
    ) -> tuple[Tensor | None, Tensor | None]:
        """What of images (B, 3, H, W) and tokens (B, L), or of their kept features, is given ->
        (B, D) each, L2-normalised.

        All of training goes through here, since wrappers for several ranks see nothing else.

        Args:
            tokens: or several of them, of other L each, whose embeddings come one after another.
            logits: give the classifier's logits (B, C), and None, in place of the embeddings.
            boxes: give the detector's logits (B, N, Q) and boxes (B, N, 4); a query is the mean of
                so many texts that follow one another.
        """
        if boxes:
            assert isinstance(images, Tensor) and tokens is not None
            queries_qd = self._texts(tokens).unflatten(0, (-1, boxes)).mean(dim=1)
            found = self.detect(images, queries_qd)
            return found.logits, found.boxes
        image_bd = text_bd = None
        if images is not None:
            image_bd = _unit(self._image(images))
        if tokens is not None:
            text_bd = self._texts(tokens)
        if logits:
            return self.class_logits(self.head_input(image_bd, text_bd)), None
        return image_bd, text_bd

    def _image(self, images: Tensor | KeptFeatures) -> Tensor:
        if isinstance(images, KeptFeatures):
            return project(self.image, images.rows)
        return self.encode_image(images)

    def _texts(self, tokens: Tensor | KeptFeatures | Sequence[Tensor | KeptFeatures]) -> Tensor:
        groups = [tokens] if isinstance(tokens, Tensor | KeptFeatures) else tokens
        return _unit(torch.cat([self._text(group) for group in groups]))

    def detect(self, images: Tensor, queries_qd: Tensor) -> PlaceAnswers:
        """Images (B, 3, H, W) and embeddings of texts (Q, D) -> what is found of each, where.

        Raises:
            ModelError: the model tells no boxes.
        """
        if self.detector is None:
            raise ModelError(f"{self.spec.name}: no detector; it was not trained with boxes")
        return self.detector(self.image, images, queries_qd)

    def _text(self, tokens: Tensor | KeptFeatures) -> Tensor:
        if isinstance(tokens, KeptFeatures):
            return project(self.text, tokens.rows)
        return self.encode_text(tokens)

    def classify(self, images: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W), tokens (B, L), or both, as ``spec.reads`` says -> logits (B, C).

        Raises:
            ModelError: the model has no head, or it reads what is not given.
        """
        logits_bc, _ = self(images, tokens, logits=True)
        assert logits_bc is not None
        return logits_bc

    def head_input(self, image_bd: Tensor | None, text_bd: Tensor | None) -> Tensor:
        """What the head reads of L2-normalised embeddings (B, D): one of them, or (B, 2D), the
        image's before the text's.

        Raises:
            ModelError: one is absent that it reads.
        """
        return join_embeddings(image_bd, text_bd, self.spec.reads)

    def class_logits(self, input_bw: Tensor) -> Tensor:
        """What :meth:`head_input` gives -> logits (B, C).

        exp(logit_scale) * (f . W^T) + b: with the rows of :func:`ptft.model.class_head`, as
        :func:`ptft.model.rows_for` lays them out, and b = 0 this is zero-shot classification. A
        head with a cache adds its votes.

        Raises:
            ModelError: the model has no head.
        """
        if self.head is None:
            raise ModelError(f"{self.spec.name}: no classifier; it was not trained with classes")
        return self.head.logits(input_bw, self.logit_scale.exp())

    @property
    def context_length(self) -> int:
        """Longest text in tokens."""
        return self.spec.tokenizer.context_length

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    def set_head(
        self,
        weight: Tensor,
        classes: Iterable[str],
        templates: Iterable[str],
        bias: Tensor | None = None,
        *,
        reads: Reads = "image",
        thresholds: Sequence[float] | None = None,
    ) -> None:
        """Put a head on the model: rows ``weight`` (C, W), and ``bias`` (C,) or zeros.

        Args:
            reads: the embedding that the rows are for; W is D, or 2D for ``both``.
            thresholds: see ``ModelSpec``.
        """
        names = tuple(classes)
        self.spec = self.spec.with_(
            classes=names,
            templates=tuple(templates),
            reads=reads,
            thresholds=None if thresholds is None else tuple(thresholds),
        )
        assert weight.shape == (len(names), self.spec.head_width)
        head = Classifier(weight.shape[1], weight.shape[0]).to(self.device)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.zero_()
            if bias is not None:
                head.bias.copy_(bias)
        self.head = head

    def set_detector(self, detector: Detector) -> None:
        """Put a head for boxes on the model."""
        self.detector = detector.to(self.device)
        self.spec = self.spec.with_(detector=detector.spec.to_dict())

    def drop_detector(self) -> None:
        """Take it away."""
        self.detector = None
        self.spec = self.spec.with_(detector=None)

    def drop_head(self) -> None:
        """Take the head away, with its class names."""
        self.head = None
        self.spec = self.spec.with_(classes=(), templates=(), reads="image", thresholds=None)

    def lock(self, towers: Iterable[str]) -> None:
        """Keep towers in eval mode, whatever :meth:`train` says; their projections follow it."""
        self.locked = frozenset(towers)
        self.train(self.training)

    def train(self, mode: bool = True) -> "DualEncoder":
        """As any module, but for locked towers and frozen batch norms, whose statistics stay."""
        super().train(mode)
        for name in self.locked:
            tower = self.get_submodule(name)
            tower.eval()
            for part in projection(tower):
                if isinstance(part, nn.Module):
                    part.train(mode)
        if self.norms_frozen:
            for part in self.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self


def join_embeddings(image_bd: Tensor | None, text_bd: Tensor | None, reads: Reads) -> Tensor:
    """One of two L2-normalised embeddings (B, D), or the two one after the other, (B, 2D).

    Raises:
        ModelError: one is absent that ``reads`` names.
    """
    given = {"image": image_bd, "text": text_bd}
    parts: list[Tensor] = []
    for tower in TOWERS_OF[reads]:
        part = given[tower]
        if part is None:
            raise ModelError(
                f"a head that reads {reads!r} needs {tower} embeddings; none are given"
            )
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _unit(x_bd: Tensor) -> Tensor:
    return F.normalize(x_bd, dim=-1)
