"""The head of a detector: of each place of a picture a box, and an embedding beside texts.

It is OWL-ViT's (Minderer et al. 2022, Simple open-vocabulary object detection with vision
transformers), on any tower that gives a grid:

- A vision transformer with a class token: its patch tokens, each times the class token, normalised.
  Bit for bit what transformers' ``OwlViTForObjectDetection`` computes with the same weights.
- One without a class token: its tokens, normalised.
- A convolutional tower: its last ``maps`` feature maps, the coarser ones enlarged and added to the
  finest (Lin et al. 2017, Feature pyramid networks), and beside each place what the tower's own
  projection makes of its last map there, so that the joint space is there from the first step.

Shape letters: B batch, N places, h x w = N the grid, F width of a place, D width of the joint
space, Q queries (texts).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptft.errors import ModelError
from ptft.files.tensors import send
from ptft.model.trunk import project
from ptft.onnx.counting import Counting

__all__ = [
    "PRIOR",
    "SCALE",
    "Detector",
    "DetectorSpec",
    "PlaceAnswers",
    "box_bias",
    "build_detector",
    "similar",
]

PRIOR = 0.01
"""Probability of every query at every place, before anything is learned."""

SCALE = 10.0
"""Of the similarities at the start."""

_EPS = 1e-6  # as OWL-ViT normalises


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is made of, beside its weights.

    Attributes:
        kind: ``patches`` (a transformer's tokens, times its class token where it has one) or
            ``maps`` (a convolutional tower's).
        maps: how many of the last feature maps are read; 1 for ``patches``.
        width: F.
        classes: what the boxes of training were called, in the order of their numbers.
        templates: prompts that made texts of them.
        counting: by what it counts; None: that was not chosen.
        nms: IoU of its answers' NMS, as its recipe has it; None: each thing is told once.
    """

    kind: str
    maps: int
    width: int
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    counting: Counting | None = None
    nms: float | None = None

    @property
    def usual_nms(self) -> float | None:
        """Unless another is asked for: what validation chose, or else the recipe's."""
        chosen = None if self.counting is None else self.counting.nms
        return self.nms if chosen is None else chosen

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        plain = asdict(self)
        del plain["counting"], plain["nms"]  # written where they say something
        said: dict[str, Any] = {} if self.nms is None else {"nms": self.nms}
        if self.counting is not None:
            said["counting"] = self.counting.to_dict()
        texts = {"classes": list(self.classes), "templates": list(self.templates)}
        return {**plain, **texts, **said}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectorSpec":
        """What :meth:`to_dict` wrote."""
        found = values.get("counting")
        return cls(
            **{
                **values,
                "classes": tuple(values["classes"]),
                "templates": tuple(values["templates"]),
                "counting": None if found is None else Counting.from_dict(found),
            }
        )


@dataclass(frozen=True)
class PlaceAnswers:
    """What a detector says of a batch.

    Attributes:
        logits: float (B, N, Q), of each query at each place; a sigmoid makes them probabilities.
        boxes: float (B, N, 4), centre x, centre y, width and height, as shares of the picture.
    """

    logits: Tensor
    boxes: Tensor


class _ClassHead(nn.Module):
    """Places beside queries; names as in transformers' ``OwlViTClassPredictionHead``."""

    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        self.dense0 = nn.Linear(width, joint)
        self.logit_shift = nn.Linear(width, 1)
        self.logit_scale = nn.Linear(width, 1)

    def embed(self, places_bnf: Tensor, known_bnd: Tensor | None) -> Tensor:
        """What is compared with texts, of any length, (B, N, D)."""
        embedded: Tensor = self.dense0(places_bnf)
        return embedded if known_bnd is None else embedded + known_bnd

    def scale(self, places_bnf: Tensor) -> Tensor:
        """What multiplies the similarities, above 0: (B, N, 1)."""
        return F.elu(self.logit_scale(places_bnf)) + 1

    def forward(self, places_bnf: Tensor, known_bnd: Tensor | None, queries_qd: Tensor) -> Tensor:
        cosines_bnq = similar(self.embed(places_bnf, known_bnd), queries_qd)
        return (cosines_bnq + self.logit_shift(places_bnf)) * self.scale(places_bnf)


class _BoxHead(nn.Module):
    """Places to boxes before the grid's bias; names as in ``OwlViTBoxPredictionHead``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.dense2 = nn.Linear(width, 4)

    def forward(self, places_bnf: Tensor) -> Tensor:
        hidden = F.gelu(self.dense0(places_bnf))
        return self.dense2(F.gelu(self.dense1(hidden)))


class _Pyramid(nn.Module):
    """Feature maps, coarse ones added to fine ones: lists of (B, C, h, w) -> (B, F, h, w)."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.smooth = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        summed: Tensor | None = None
        for layer, found in zip(reversed(self.lateral), reversed(maps), strict=True):
            own = layer(found)
            if summed is not None:
                own = own + F.interpolate(summed, size=own.shape[-2:], mode="nearest")
            summed = own
        assert summed is not None
        smoothed: Tensor = self.smooth(F.gelu(summed))
        return smoothed


class Detector(nn.Module):
    """The head. Its weights are its own; the tower is given with each call.

    Attributes:
        spec: what it is made of.
    """

    def __init__(self, spec: DetectorSpec, joint: int, channels: list[int]) -> None:
        super().__init__()
        self.spec = spec
        self.pyramid = _Pyramid(channels, spec.width) if spec.kind == "maps" else None
        self.layer_norm = nn.LayerNorm(spec.width)
        self.class_head = _ClassHead(spec.width, joint)
        self.box_head = _BoxHead(spec.width)

    def forward(self, tower: Any, images: Tensor, queries_qd: Tensor) -> PlaceAnswers:
        """Normalised pixels (B, 3, H, W) and texts' embeddings (Q, D) of any length."""
        places_bnf, known_bnd, grid = self.places(tower, images)
        logits = self.class_head(places_bnf, known_bnd, queries_qd)
        return PlaceAnswers(logits, self.boxes(places_bnf, grid))

    def rows(self, tower: Any, images: Tensor) -> Tensor:
        """All that is said of each place before a text is asked for, float (B, N, D + 6): what is
        compared with texts, the shift and the scale of that, and the box."""
        places_bnf, known_bnd, grid = self.places(tower, images)
        head = self.class_head
        embedded = head.embed(places_bnf, known_bnd)
        shift, scale = head.logit_shift(places_bnf), head.scale(places_bnf)
        return torch.cat([embedded, shift, scale, self.boxes(places_bnf, grid)], dim=-1)

    def places(self, tower: Any, images: Tensor) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """Of each place: what the heads read (B, N, F), and what the joint space knows of it
        already (B, N, D) or None; and the grid (h, w)."""
        if self.pyramid is None:
            tokens, grid = _tokens(tower, images)
            return self.layer_norm(tokens), None, grid
        maps = _maps(tower, images, self.spec.maps)
        fused = self.pyramid(maps)
        grid = (fused.shape[-2], fused.shape[-1])
        known = F.interpolate(_projected(tower, maps[-1]), size=grid, mode="nearest")
        return self.layer_norm(_flat(fused)), _flat(known), grid

    def boxes(self, places_bnf: Tensor, grid: tuple[int, int]) -> Tensor:
        """Centre x, centre y, width, height in (0, 1): (B, N, 4)."""
        bias_n4 = send(box_bias(grid), places_bnf.device)
        return (self.box_head(places_bnf).float() + bias_n4).sigmoid()


def similar(embedded_bnd: Tensor, queries_qd: Tensor) -> Tensor:
    """Cosines of places (B, N, D) with queries (Q, D), normalised as OWL-ViT does: (B, N, Q)."""
    places = embedded_bnd / (torch.linalg.norm(embedded_bnd, dim=-1, keepdim=True) + _EPS)
    queries = queries_qd / (torch.linalg.norm(queries_qd, dim=-1, keepdim=True) + _EPS)
    return places @ queries.T


def box_bias(grid: tuple[int, int]) -> Tensor:
    """Where a box is before anything is learned, as logits: float32 (N, 4), row by row.

    Its centre is the far corner of the place, its size that of the place, as OWL-ViT has them.
    """
    height, width = grid
    y, x = torch.meshgrid(
        torch.arange(1, height + 1, dtype=torch.float32) / height,
        torch.arange(1, width + 1, dtype=torch.float32) / width,
        indexing="ij",
    )
    centre = torch.stack([x, y], dim=-1).reshape(-1, 2)
    size = torch.tensor([1 / width, 1 / height]).expand_as(centre)
    shares = torch.cat([centre, size], dim=-1)
    return torch.log(shares + 1e-4) - torch.log1p(-shares + 1e-4)


def build_detector(tower: Any, joint: int, *, maps: int = 2, width: int = 256) -> Detector:
    """A head for an image tower, with random weights from torch's generator.

    Args:
        tower: of the model.
        joint: D.
        maps: of a convolutional tower, how many of its last feature maps are read.
        width: F of a convolutional tower's places; a transformer's are its own.

    Raises:
        ModelError: the tower gives no grid.
    """
    if type(tower).__name__ == "VisionTransformer":
        spec = DetectorSpec("patches", 1, int(tower.ln_post.normalized_shape[0]))
        channels: list[int] = []
    elif type(tower).__name__ == "TimmModel":
        spec, channels = _timm_spec(tower.trunk, maps, width)
    else:
        raise ModelError(
            f"objective.kind: 'detect': {type(tower).__name__} gives no grid of places; allowed: "
            "a vision transformer of open_clip or timm, or a convolutional tower of timm"
        )
    detector = Detector(spec, joint, channels)
    _start(detector, tower)
    return detector


@torch.no_grad()
def _start(detector: Detector, tower: Any) -> None:
    """Every query is unlikely everywhere; boxes lie on the grid; of a transformer the class
    embedding begins as its projection does."""
    head = detector.class_head
    for part in (head.logit_shift, head.logit_scale, detector.box_head.dense2):
        part.weight.zero_()
        part.bias.zero_()
    head.logit_scale.bias.fill_(SCALE - 1)
    prior = torch.log(torch.tensor(PRIOR / (1 - PRIOR)))
    head.logit_shift.bias.fill_(float(prior) / SCALE)
    if detector.pyramid is not None:  # what is known already decides at first
        head.dense0.weight.mul_(0.1)
        head.dense0.bias.zero_()
    elif isinstance(getattr(tower, "proj", None), nn.Parameter):
        head.dense0.weight.copy_(tower.proj.T)
        head.dense0.bias.zero_()


def _timm_spec(trunk: Any, maps: int, width: int) -> tuple[DetectorSpec, list[int]]:
    if hasattr(trunk, "num_prefix_tokens") and hasattr(trunk, "patch_embed"):
        return DetectorSpec("patches", 1, int(trunk.num_features)), []
    if not hasattr(trunk, "feature_info") or not hasattr(trunk, "forward_intermediates"):
        raise ModelError(
            f"objective.kind: 'detect': {type(trunk).__name__} gives no feature maps; allowed: a "
            "timm network with forward_intermediates"
        )
    channels = [int(info["num_chs"]) for info in trunk.feature_info]
    channels[-1] = int(trunk.num_features)
    if not 1 <= maps <= len(channels):
        raise ModelError(f"objective.maps: {maps}; allowed for this tower: 1 to {len(channels)}")
    return DetectorSpec("maps", maps, width), channels[-maps:]


def _tokens(tower: Any, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Patch tokens (B, N, F), normalised as the tower does, times its class token, and the grid."""
    if type(tower).__name__ == "VisionTransformer":
        x_blf = tower.ln_post(tower.transformer(tower._embeds(images)))
        grid = tuple(tower.grid_size)
        prefix = 1
    else:
        trunk = tower.trunk
        x_blf = trunk.forward_features(images)
        grid = tuple(trunk.patch_embed.grid_size)
        prefix = int(getattr(trunk, "num_prefix_tokens", 0))
    places = x_blf[:, prefix:]
    if prefix and _has_class_token(tower):
        places = places * x_blf[:, :1]
    return places, (int(grid[0]), int(grid[1]))


def _has_class_token(tower: Any) -> bool:
    if type(tower).__name__ == "VisionTransformer":
        return True
    return getattr(tower.trunk, "cls_token", None) is not None


def _maps(tower: Any, images: Tensor, count: int) -> list[Tensor]:
    """The last feature maps, fine before coarse, each (B, C, h, w); the last is the one that the
    tower pools."""
    last, between = tower.trunk.forward_intermediates(images, indices=count)
    if last.shape[1] != tower.trunk.num_features:  # (B, h, w, C), as Swin has it
        last = last.permute(0, 3, 1, 2)
    return [*between[:-1], last]


def _projected(tower: Any, last: Tensor) -> Tensor:
    """What the tower's projection makes of each place of its last map by itself: (B, D, h, w)."""
    batch, _, height, width = last.shape
    rows = last.permute(0, 2, 3, 1).reshape(batch * height * width, -1, 1, 1)
    trunk = tower.trunk
    features = trunk.forward_head(rows, pre_logits=True)
    embedded = project(tower, features)
    return embedded.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def _flat(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, N, C)."""
    return maps.flatten(2).transpose(1, 2)
