"""What of a pretrained model learns where not all of it does: the kinds of adapters.

Roles name the layers of a transformer block the same way in every library: ``q``, ``k``, ``v`` and
``out`` of attention, ``fc1`` and ``fc2`` of the MLP; ``conv`` is a convolution of one group.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ptft.recipe.section import Section

__all__ = [
    "Adapter",
    "AdapterSection",
    "BottleneckAdapt",
    "DoraAdapt",
    "Ia3Adapt",
    "LoraAdapt",
    "PrefixAdapt",
    "ProjectionAdapt",
    "Role",
    "TipAdapterAdapt",
    "TowerName",
]

Role = Literal["q", "k", "v", "out", "fc1", "fc2", "conv"]
TowerName = Literal["image", "text"]


def _once(values: list[str]) -> list[str]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return values


_SOME = Field(min_length=1, json_schema_extra={"uniqueItems": True})
Roles = Annotated[list[Role], _SOME, AfterValidator(_once)]


class AdapterSection(Section):
    """What every adapter has: the base model stays as it is, batch statistics included."""

    towers: Annotated[list[TowerName], _SOME, AfterValidator(_once)] = ["image", "text"]
    """Which towers get the adapter. The other one is locked and runs in eval mode; what the
    objective does not read gets none."""
    logit_scale: bool = True
    """Whether the logit scale learns (and SigLIP's bias)."""


class _InsideAdapt(AdapterSection):
    projections: bool = False
    """Whether the last maps into the joint space learn as well, as whole weights: for towers that
    were not trained together."""
    head: bool = True
    """Whether the head of a classifier learns."""


class _LowRankAdapt(_InsideAdapt):
    rank: int = Field(default=8, ge=1)
    """Rows of A and columns of B."""
    alpha: int = Field(default=16, ge=1)
    """Numerator of the scale on B A."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """On the input of A, while training."""
    targets: Roles | None = None
    """Layers by role. Absent: q, k and v, as CLIP-LoRA has it (Zanella and Ben Ayed 2024); in a
    tower without attention fc1, fc2 and conv."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that the rank does not change the step (Kalajdzievski
    2023)."""


class LoraAdapt(_LowRankAdapt):
    """W + (alpha / rank) B A beside chosen layers (Hu et al. 2022, LoRA); merged afterwards."""

    kind: Literal["lora"] = "lora"


class DoraAdapt(_LowRankAdapt):
    """LoRA on the direction of each row of a weight, with its length learned apart (Liu et al.
    2024, DoRA); merged afterwards."""

    kind: Literal["dora"] = "dora"


class Ia3Adapt(_InsideAdapt):
    """A learned factor for each channel of keys, values and the MLP's hidden layer (Liu et al.
    2022, IA3); merged afterwards."""

    kind: Literal["ia3"] = "ia3"
    targets: Roles | None = None
    """Layers by role; the factors of fc2 are on its input, all others on the output. Absent: k, v
    and fc2; in a tower without attention fc2 and conv."""


class BottleneckAdapt(_InsideAdapt):
    """x + up(gelu(down(x))) after each sublayer, up at zero first (Houlsby et al. 2019). It stays
    part of the model, which open_clip's files cannot express then."""

    kind: Literal["bottleneck"] = "bottleneck"
    width: int = Field(default=64, ge=1)
    """Features between down and up."""
    after: Annotated[list[Literal["attention", "mlp"]], _SOME, AfterValidator(_once)] = [
        "attention",
        "mlp",
    ]
    """The sublayers of a block that get one."""


class PrefixAdapt(_InsideAdapt):
    """Learned tokens before the tower's own: visual prompt tuning (Jia et al. 2022) and, for text,
    a prefix that every word attends to. They stay part of the model, which open_clip's files cannot
    express then."""

    kind: Literal["prefix"] = "prefix"
    length: int = Field(default=8, ge=1)
    """Tokens."""
    depth: Literal["shallow", "deep"] = "shallow"
    """Before the first block alone, or new ones before each."""


class ProjectionAdapt(AdapterSection):
    """Only the last maps into the joint space learn (Fahes et al. 2024, ProLIP)."""

    kind: Literal["projection"] = "projection"
    head: bool = False
    """Whether the head of a classifier learns; ProLIP keeps the one made of prompts."""


class TipAdapterAdapt(Section):
    """The training pictures are remembered as a cache beside the class head; nothing is trained,
    and ``optim`` is not read (Zhang et al. 2022, Tip-Adapter). For ``classify``."""

    kind: Literal["tip_adapter"] = "tip_adapter"
    alpha: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | Literal["auto"] = "auto"
    """What the cache's vote counts beside the head's logits; ``auto``: chosen on ``data.val``."""
    beta: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | Literal["auto"] = "auto"
    """How quickly a picture's vote falls with the distance to it; ``auto``: likewise."""
    val_limit: int | None = Field(default=None, ge=1)
    """Samples of ``data.val`` that ``auto`` may choose on, drawn by the recipe's seed; absent: all
    of them."""
    learn: bool = False
    """Whether the remembered embeddings then learn by steps, as Tip-Adapter-F's do; the towers and
    the head's rows stay."""

    @property
    def chooses(self) -> bool:
        """Whether validation is read."""
        return "auto" in (self.alpha, self.beta)


Adapter = LoraAdapt | DoraAdapt | Ia3Adapt | BottleneckAdapt | PrefixAdapt | ProjectionAdapt
"""Every kind of adapter; ``adapt.kind`` chooses."""
