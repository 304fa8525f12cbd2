"""The model section of a recipe: an architecture by name, or two towers."""

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from ptft.recipe.section import Section

__all__ = ["ArchModel", "ModelSection", "TextTower", "TowersModel"]


class ArchModel(Section):
    """An open_clip architecture by name."""

    name: str
    """As ``ptft ls --architectures`` lists them: ``ViT-B-32``, ``ViT-B-16-SigLIP``, ..."""
    pretrained: str | None = None
    """Weights to start from: an open_clip tag (``laion2b_s34b_b79k``), ``org/repo@revision`` on the
    Hub, or a local folder or safetensors file. Absent: random."""
    image_size: int | None = Field(default=None, ge=16)
    """Side in pixels, where it differs from the architecture's; position embeddings are resized."""
    context_length: int | None = Field(default=None, ge=4)
    """Longest text in tokens, marks included, where it differs from the architecture's. Of trained
    position embeddings the first ones are kept as they are, so that a text that fits both lengths
    has the embedding that it had; positions beyond them start at random."""


class TextTower(Section):
    """A causal transformer with CLIP's byte-pair vocabulary, as in open_clip."""

    width: int = Field(default=256, ge=16)
    """Of the transformer."""
    layers: int = Field(default=4, ge=1)
    """Blocks of the transformer."""
    heads: int = Field(default=4, ge=1)
    """Attention heads of a block; they divide the width."""
    context_length: int = Field(default=77, ge=4)
    """Longest text in tokens, the start and end marks included."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TextTower":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class TowersModel(Section):
    """A timm image tower and a text tower, joined by projections of one width."""

    image: str
    """A timm model name: ``vit_small_patch16_224``, ``mobilenetv2_100``, ..."""
    image_weights: str | None = None
    """A timm tag, a local safetensors file, or a Hub id with revision. Absent: random."""
    image_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Keyword arguments of ``timm.create_model`` (``pad_type: same``). open_clip's own files cannot
    carry them; an export says so."""
    image_size: int = Field(default=224, ge=16)
    """Side in pixels."""
    image_pool: str = ""
    """timm's global pooling (``avg``, ``token``, ``map``); empty: the model's own."""
    image_projection: Literal["linear", "mlp", "none"] = "linear"
    """From the image tower's features to the joint space; ``none``: they have its width already."""
    text: str | TextTower = Field(default_factory=TextTower)
    """A transformers model (Hub id or local folder), or the widths of a CLIP text transformer."""
    text_weights: bool = True
    """Whether a transformers text tower starts from its published weights."""
    text_projection: Literal["linear", "mlp", "none"] = "linear"
    """From the text tower's features to the joint space; ``none``: they have its width already."""
    text_pool: Literal[
        "mean_pooler", "cls_pooler", "max_pooler", "cls_last_hidden_state_pooler"
    ] = "mean_pooler"
    """Pooling of a transformers text tower, by open_clip's names."""
    text_clean: Literal["whitespace", "none"] = "whitespace"
    """What happens to a text before the tokenizer of a transformers text tower: ``whitespace`` as
    in open_clip (wrongly decoded bytes are repaired, HTML entities resolved, white space joined);
    ``none``: nothing, as where the tower was trained. open_clip's own files cannot carry that; an
    export says so."""
    context_length: int = Field(default=77, ge=4)
    """Longest text in tokens, for a transformers text tower."""
    embed_dim: int = Field(default=512, ge=8)
    """Width of the joint space."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's CLIP
    """Subtracted from the pixels, in units of full brightness."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    """What they are divided by after that."""

    @model_validator(mode="after")
    def _clean_of_a_transformers_tower(self) -> "TowersModel":
        if self.text_clean != "whitespace" and isinstance(self.text, TextTower):
            raise ValueError(
                f"text_clean {self.text_clean} is for a transformers text tower; allowed for "
                "CLIP's: whitespace"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_there_was_a_choice(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if values.get("text_clean") == "whitespace":
            del values["text_clean"]  # so that digests stay
        return values


def _which_model(value: object) -> str:
    if isinstance(value, dict):
        return "towers" if "image" in value else "name"
    return "towers" if isinstance(value, TowersModel) else "name"


ModelSection = Annotated[
    Annotated[ArchModel, Tag("name")] | Annotated[TowersModel, Tag("towers")],
    Discriminator(_which_model),
]
