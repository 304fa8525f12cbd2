"""What the service is asked and answers, as JSON; the source of ``/openapi.json``."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = [
    "Classes",
    "ClassifyInputs",
    "ClassifyOptions",
    "EmbedImages",
    "EmbedOptions",
    "EmbedTexts",
    "Embedded",
    "Failure",
    "ImageInput",
    "OpenAIEmbedded",
    "OpenAIEmbeddings",
    "ServedModel",
    "TextInput",
]

MAX_TEXT = 32_768
"""Characters of one text. Every tower reads far fewer; cleaning up a megabyte takes seconds."""

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Images = Annotated[list[str], Field(min_length=1, description="base64, or data:image/...;base64,")]
Encoding = Annotated[
    Literal["float", "base64"], Field(description="base64: of little-endian float32")
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EmbedOptions(_Request):
    """How embeddings are written."""

    encoding_format: Encoding = "float"


class EmbedImages(EmbedOptions):
    """Images to embed."""

    images: Images


class EmbedTexts(EmbedOptions):
    """Texts to embed."""

    texts: Annotated[list[Text], Field(min_length=1)]


class ClassifyOptions(_Request):
    """Texts to classify, and labels for zero-shot; without labels, the model's own classes."""

    labels: Annotated[list[Text], Field(min_length=1)] | None = None
    templates: (
        Annotated[list[Text], Field(min_length=1, description="prompts; {} is the label")] | None
    ) = None
    top_k: Annotated[int, Field(ge=1)] = 5
    texts: (
        Annotated[
            list[Text],
            Field(min_length=1, description="of a model that reads texts; one an image if both"),
        ]
        | None
    ) = None

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | None) -> list[str] | None:
        if labels and len(set(labels)) != len(labels):
            raise ValueError("the same label twice")
        return labels

    @field_validator("templates")
    @classmethod
    def _has_place(cls, templates: list[str] | None) -> list[str] | None:
        for template in templates or []:
            if "{}" not in template:
                raise ValueError(f"{template!r} has no {{}} for the label")
        return templates


class ClassifyInputs(ClassifyOptions):
    """Images, texts, or images with a text each, as the model reads them."""

    images: Images | None = None


class TextInput(_Request):
    """A text, whatever it looks like."""

    text: Text


class ImageInput(_Request):
    """An image: base64, or a data URI."""

    image: str


class OpenAIEmbeddings(_Request):
    """The body of OpenAI's ``/v1/embeddings``, with images as data URIs."""

    input: str | Annotated[list[str | TextInput | ImageInput], Field(min_length=1)]
    model: str | None = None
    encoding_format: Encoding = "float"
    dimensions: int | None = None
    user: str | None = None


class Failure(BaseModel):
    """Why one item has no answer."""

    type: str
    message: str


class Embedding(BaseModel):
    """One item's embedding (float32, L2-normalised), or why there is none."""

    index: int
    embedding: list[float] | str | None = None
    error: Failure | None = None


class _Answer(BaseModel):
    model: str
    digest: str


class Embedded(_Answer):
    """Embeddings, in the order of what was sent."""

    dim: int
    results: list[Embedding]


class ClassProbability(BaseModel):
    """A class and its probability among all that were asked for."""

    label: str
    probability: float


class Classified(BaseModel):
    """One item's most probable classes, or why there are none."""

    index: int
    classes: list[ClassProbability] | None = None
    error: Failure | None = None


class Classes(_Answer):
    """Classes of items, in the order of what was sent."""

    results: list[Classified]


class OpenAIEmbedding(BaseModel):
    """One item in OpenAI's form; ``object`` is ``error`` where it failed."""

    object: Literal["embedding", "error"]
    index: int
    embedding: list[float] | str | None
    error: Failure | None = None


class OpenAIEmbedded(_Answer):
    """OpenAI's answer, and the digest."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    usage: dict[str, int]


class ServedModel(_Answer):
    """What is served and what it came from."""

    task: str
    dim: int
    context_length: int
    image_size: tuple[int, int]
    precision: str
    reads: Annotated[str, Field(description="of ``/v1/classify``: image, text or both")]
    classes: list[str]
    templates: list[str]
    weights_digest: str
    recipe_digest: str
    versions: dict[str, str]
