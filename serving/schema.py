"""What the service is asked and answers, as JSON; the source of ``/openapi.json``."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = [
    "MAX_TEXT",
    "Classes",
    "ClassifyInputs",
    "ClassifyOptions",
    "DetectInputs",
    "DetectOptions",
    "Detected",
    "EmbedImages",
    "EmbedOptions",
    "EmbedTexts",
    "Embedded",
    "Encoding",
    "ErrorAnswer",
    "Failure",
    "ImageInput",
    "Images",
    "NamedAnswer",
    "RequestBody",
    "ServedModel",
    "Text",
    "TextInput",
]

MAX_TEXT = 32_768
"""Characters of one text. Every tower reads far fewer; cleaning up a megabyte takes seconds."""

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Images = Annotated[list[str], Field(min_length=1, description="base64, or data:image/...;base64,")]
Encoding = Annotated[
    Literal["float", "base64"], Field(description="base64: of little-endian float32")
]


class RequestBody(BaseModel):
    """A body whose keys are all known.

    Attributes:
        MANY: keys of lists that run in several batches (``PTFT_MAX_INPUTS``).
    """

    MANY: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(extra="forbid")


class EmbedOptions(RequestBody):
    """How embeddings are written."""

    encoding_format: Encoding = "float"


class EmbedImages(EmbedOptions):
    """Images to embed."""

    images: Images


class EmbedTexts(EmbedOptions):
    """Texts to embed."""

    texts: Annotated[list[Text], Field(min_length=1)]


class LabelOptions(RequestBody):
    """Labels, and the prompts that they are put into."""

    labels: Annotated[list[Text], Field(min_length=1)] | None = None
    templates: (
        Annotated[list[Text], Field(min_length=1, description="prompts; {} is the label")] | None
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


class ClassifyOptions(LabelOptions):
    """Texts to classify, and labels for zero-shot; without labels, the model's own classes."""

    top_k: Annotated[
        int | None,
        Field(
            ge=1,
            description="classes of an answer; absent: 5, or all of a model that tells each class "
            "by itself",
        ),
    ] = None
    texts: (
        Annotated[
            list[Text],
            Field(min_length=1, description="of a model that reads texts; one an image if both"),
        ]
        | None
    ) = None


class DetectOptions(LabelOptions):
    """What to look for: labels, or else the model's own classes; and what of it to tell."""

    threshold: Annotated[
        float, Field(ge=0, le=1, description="probability below which a box is not told")
    ] = 0.1
    most: Annotated[int, Field(ge=1, le=1000, description="boxes of an image, at most")] = 100
    nms: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="IoU from which of two boxes of a label the surer stays, 1: both do; "
            "absent: ``nms`` of ``/v1/model``",
        ),
    ] = None
    count: Annotated[
        bool,
        Field(
            description="tell what the model counts, by its own scores and NMS, and how many; of "
            "its own classes alone"
        ),
    ] = False


class DetectInputs(DetectOptions):
    """Images to look at, and images of things to look for."""

    images: Images
    examples: (
        Annotated[
            list[str], Field(min_length=1, description="crops: each is looked for, beside labels")
        ]
        | None
    ) = None


class ClassifyInputs(ClassifyOptions):
    """Images, texts, or images with a text each, as the model reads them."""

    images: Images | None = None


class TextInput(RequestBody):
    """A text, whatever it looks like."""

    text: Text


class ImageInput(RequestBody):
    """An image: base64, or a data URI."""

    image: str


class Failure(BaseModel):
    """Why one item has no answer."""

    type: str
    message: str


class ErrorDetail(BaseModel):
    """Why a request has no answer: OpenAI's keys, and the request's id."""

    type: str
    code: Annotated[str, Field(description="a stable word for programs")]
    message: Annotated[str, Field(description="names the key, its value and what is allowed")]
    param: Annotated[str | None, Field(description="the key, if it is one's fault")]
    request_id: str


class ErrorAnswer(BaseModel):
    """Every refusal."""

    error: ErrorDetail


class Embedding(BaseModel):
    """One item's embedding (float32, L2-normalised), or why there is none."""

    index: int
    embedding: list[float] | str | None = None
    error: Failure | None = None


class NamedAnswer(BaseModel):
    """An answer that names the model that gave it."""

    model: str
    digest: str


class Embedded(NamedAnswer):
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
    labels: Annotated[
        list[str] | None,
        Field(
            description="classes that reach their thresholds, the most probable first; of a model "
            "whose classes do not exclude each other"
        ),
    ] = None
    error: Failure | None = None


class Classes(NamedAnswer):
    """Classes of items, in the order of what was sent."""

    results: list[Classified]


class Box(BaseModel):
    """A thing that was found, by a label or by an example."""

    label: str | None = None
    example: Annotated[int | None, Field(description="place in ``examples``")] = None
    score: Annotated[float, Field(description="probability")]
    box: Annotated[
        tuple[float, float, float, float],
        Field(description="left, top, right, bottom in pixels of the upright image"),
    ]


class DetectedImage(BaseModel):
    """One image's boxes, the surest first, or why there are none."""

    index: int
    width: Annotated[int | None, Field(description="of the upright image, pixels")] = None
    height: int | None = None
    boxes: list[Box] | None = None
    counts: Annotated[
        dict[str, int] | None, Field(description="boxes of each class, where ``count`` asks")
    ] = None
    error: Failure | None = None


class Detected(NamedAnswer):
    """Boxes of images, in the order of what was sent."""

    results: list[DetectedImage]


class ServedModel(NamedAnswer):
    """What is served and what it came from."""

    task: Annotated[str, Field(description="embed, classify, or detect: it has ``/v1/detect``")]
    dim: int
    context_length: int
    image_size: tuple[int, int]
    precision: str
    reads: Annotated[str, Field(description="of ``/v1/classify``: image, text or both")]
    texts: Annotated[
        str, Field(description="yes; warned or refused, since they hardly find its pictures")
    ]
    texts_reason: Annotated[str, Field(description="what was measured; empty with yes")]
    classes: list[str]
    thresholds: Annotated[
        list[float],
        Field(description="of classes that do not exclude each other: told from these on"),
    ]
    nms: Annotated[
        float | None,
        Field(description="of ``/v1/detect``, where a request has none; null: every box is told"),
    ]
    counts: Annotated[bool, Field(description="``/v1/detect`` can ``count``")]
    templates: list[str]
    weights_digest: str
    recipe_digest: str
    versions: dict[str, str]
