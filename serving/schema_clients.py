"""What other people's clients ask: OpenAI's, Infinity's, vLLM's, Jina's and Cohere's keys.

A key that changes nothing here is passed over. One that would change the answer is let through
with the value that the model has anyway, and refused by name with any other.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainValidator, ValidationInfo, model_validator

from ptft.files.bounds import brief, shown
from serving.items import Item, read_items, read_message
from serving.refusal import Refusal
from serving.schema import (
    Encoding,
    ImageInput,
    Images,
    RequestBody,
    Text,
    TextInput,
)

__all__ = [
    "ChatMessage",
    "CohereContent",
    "CohereEmbed",
    "ImagePart",
    "ImageUrl",
    "ImmichForm",
    "OpenAIEmbeddings",
    "Rerank",
    "Search",
    "SearchOptions",
    "SearchPicture",
    "Similarity",
    "SimilarityOptions",
    "TextPart",
]

PASSED = "passed over"
NotGiven = Annotated[None, Field(description="not supported")]


class ImageUrl(RequestBody):
    """A picture of a message: a data URI, or a URL of a host that the deployment fetches from."""

    url: str
    detail: Annotated[str | None, Field(description=PASSED)] = None


class ImagePart(RequestBody):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl | str


class TextPart(RequestBody):
    """A text of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(RequestBody):
    """A message of one part: the model embeds a text or a picture, and joins none."""

    role: Literal["user"]
    content: str | Annotated[list[TextPart | ImagePart], Field(min_length=1, max_length=1)]


class CohereContent(RequestBody):
    """An input of Cohere's form, of one part."""

    content: Annotated[list[TextPart | ImagePart], Field(min_length=1, max_length=1)]


AnyInput = str | TextInput | ImageInput | TextPart | ImagePart


_KINDS = {"texts": "text", "images": "image"}  # what a bare string is, by its key


def _optional(value: object, info: ValidationInfo) -> list[Item] | None:
    return None if value is None else _items(value, info)


def _items(value: object, info: ValidationInfo) -> list[Item]:
    key = str(info.field_name)
    return read_items(value, key, info.data.get("modality") or _KINDS.get(key))


def _messages(value: object) -> list[Item] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        found = shown(value)
        raise Refusal(422, "invalid", f"messages: {found}; allowed: a list of one message")
    unknown = sorted(set(value[0]) - {"role", "content"})
    if unknown or value[0].get("role") != "user":
        about = unknown[0] if unknown else "role"
        found = shown(value[0].get(about))
        what = f"messages[0].{brief(about)}: {found}; allowed: role user, and content"
        raise Refusal(422, "invalid", what)
    return [read_message(value[0], "messages[0]")]


Items = Annotated[list[Item], PlainValidator(_items, json_schema_input_type=list[AnyInput])]


class OpenAIEmbeddings(RequestBody):
    """OpenAI's ``/v1/embeddings``, with pictures as Infinity, vLLM and Jina send them."""

    MANY = ("input",)
    model: Annotated[str | None, Field(description="the model's name, or one of PTFT_ALIASES")] = (
        None
    )
    modality: Annotated[
        Literal["text", "image"] | None, Field(description="Infinity's: what a bare string is")
    ] = None
    input: Annotated[
        list[Item] | None,
        PlainValidator(_optional, json_schema_input_type=str | list[AnyInput] | None),
        Field(description="texts; pictures as data:image/...;base64, or {image: base64}"),
    ] = None
    messages: Annotated[
        list[Item] | None,
        PlainValidator(_messages, json_schema_input_type=list[ChatMessage] | None),
        Field(description="vLLM's, in place of input"),
    ] = None
    encoding_format: Encoding | None = None
    embedding_type: Annotated[
        Literal["float", "base64"] | None, Field(description="Jina's encoding_format")
    ] = None
    dimensions: Annotated[
        int | None, Field(description="0: all; fewer where the model or PTFT_DIMENSIONS allows it")
    ] = None
    user: Annotated[str | None, Field(description=PASSED)] = None
    task: Annotated[str | None, Field(description=f"Jina's; {PASSED}")] = None
    request_id: Annotated[str | None, Field(description=f"vLLM's; {PASSED}")] = None
    priority: Annotated[int | None, Field(description=f"vLLM's; {PASSED}")] = None
    cache_salt: Annotated[str | None, Field(description=f"vLLM's; {PASSED}")] = None
    normalized: Annotated[Literal[True] | None, Field(description="Jina's")] = None
    normalize: Annotated[Literal[True] | None, Field(description="vLLM's")] = None
    use_activation: Annotated[Literal[True] | None, Field(description="vLLM's")] = None
    truncate: Annotated[
        Literal[True] | None, Field(description="Jina's: long texts are cut at the model's length")
    ] = None
    truncate_prompt_tokens: Annotated[Literal[-1] | None, Field(description="vLLM's")] = None
    truncation_side: Annotated[Literal["right"] | None, Field(description="vLLM's")] = None
    late_chunking: Annotated[Literal[False] | None, Field(description="Jina's")] = None
    return_multivector: Annotated[Literal[False] | None, Field(description="Jina's")] = None
    add_special_tokens: Annotated[
        bool | None, Field(description="vLLM's; false with messages alone")
    ] = None
    add_generation_prompt: Annotated[Literal[False] | None, Field(description="vLLM's")] = None
    continue_final_message: Annotated[Literal[False] | None, Field(description="vLLM's")] = None
    chat_template: NotGiven = None
    chat_template_kwargs: NotGiven = None
    mm_processor_kwargs: NotGiven = None
    embed_dtype: Annotated[Literal["float32"] | None, Field(description="vLLM's")] = None
    endianness: Annotated[Literal["native", "little"] | None, Field(description="vLLM's")] = None

    @model_validator(mode="after")
    def _one_source(self) -> "OpenAIEmbeddings":
        if (self.input is None) == (self.messages is None):
            found = "missing" if self.input is None else "given beside messages"
            raise Refusal(422, "invalid", f"input: {found}; allowed: either input or messages")
        if self.add_special_tokens is False and self.messages is None:
            what = "add_special_tokens: False; allowed: True, the model was trained with them"
            raise Refusal(422, "invalid", what)
        return self

    @property
    def items(self) -> list[Item]:
        """What is to be embedded."""
        return self.input or self.messages or []

    @property
    def encoding(self) -> str:
        """How embeddings are written."""
        return self.encoding_format or self.embedding_type or "float"


CohereType = Literal["float", "base64"]


class CohereEmbed(RequestBody):
    """Cohere's ``/v2/embed``."""

    MANY = ("texts", "images", "inputs")
    model: str | None = None
    input_type: Annotated[
        Literal["search_document", "search_query", "classification", "clustering", "image", "none"]
        | None,
        Field(description=f"{PASSED}: the model embeds all alike"),
    ] = None
    texts: Annotated[
        list[Item] | None,
        PlainValidator(_optional, json_schema_input_type=list[str] | None),
    ] = None
    images: Annotated[
        list[Item] | None,
        PlainValidator(_optional, json_schema_input_type=list[str] | None),
    ] = None
    inputs: Annotated[
        list[Item] | None,
        PlainValidator(_optional, json_schema_input_type=list[CohereContent] | None),
    ] = None
    embedding_types: Annotated[list[CohereType] | None, Field(min_length=1)] = None
    output_dimension: int | None = None
    truncate: Annotated[
        Literal["END"] | None, Field(description="long texts are cut at the model's length")
    ] = None
    max_tokens: NotGiven = None
    priority: Annotated[int | None, Field(description=PASSED)] = None

    @model_validator(mode="after")
    def _one_source(self) -> "CohereEmbed":
        given = [one for one in (self.texts, self.images, self.inputs) if one]
        if len(given) != 1:
            what = f"texts: {len(given)} of texts, images and inputs are given; allowed: one"
            raise Refusal(422, "invalid", what)
        return self

    @property
    def key(self) -> str:
        """Where the inputs stand."""
        return "texts" if self.texts else "images" if self.images else "inputs"

    @property
    def items(self) -> list[Item]:
        """What is to be embedded."""
        return self.texts or self.images or self.inputs or []


class SimilarityOptions(RequestBody):
    """Texts that images are held against."""

    model: str | None = None
    texts: Annotated[list[Text], Field(min_length=1)]


class Similarity(SimilarityOptions):
    """Images and texts, each to be held against each."""

    images: Images


class Rerank(RequestBody):
    """A query and documents, in the shape that Cohere's, Jina's and Infinity's clients send."""

    MANY = ("documents",)
    model: str | None = None
    query: Annotated[list[Item], PlainValidator(_items, json_schema_input_type=AnyInput)]
    documents: Items
    top_n: Annotated[int | None, Field(ge=1)] = None
    return_documents: bool | None = None
    raw_scores: Annotated[Literal[False] | None, Field(description="Infinity's")] = None
    max_tokens_per_doc: NotGiven = None
    max_chunks_per_doc: NotGiven = None
    rank_fields: NotGiven = None
    relevant_spans: NotGiven = None
    return_embeddings: Annotated[Literal[False] | None, Field(description="Jina's")] = None
    truncation: Annotated[Literal[True] | None, Field(description="Jina's, Voyage's")] = None
    priority: Annotated[int | None, Field(description=PASSED)] = None


class SearchOptions(RequestBody):
    """How much of the index is told."""

    k: Annotated[int, Field(ge=1, le=1000, description="the nearest so many")] = 10
    thumbnails: Annotated[bool, Field(description="as data URIs, where the index has them")] = False


class Search(SearchOptions):
    """A text or a picture, to be held against the index."""

    query: Annotated[list[Item], PlainValidator(_items, json_schema_input_type=AnyInput)]


class SearchPicture(SearchOptions):
    """A picture, in a form or as it is."""

    images: Images


class ImmichForm(BaseModel):
    """Immich's form."""

    entries: Annotated[str, Field(description="JSON: {clip: {visual: {modelName}}}, or textual")]
    text: str | None = None
