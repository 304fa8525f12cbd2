"""What other people's clients are answered: OpenAI's, Cohere's, Jina's and Immich's keys."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from serving.schema import Failure, NamedAnswer, TextInput

__all__ = [
    "CohereEmbedded",
    "Found",
    "ImmichClip",
    "OpenAIEmbedded",
    "OpenAIModel",
    "OpenAIModels",
    "Reranked",
    "Similarities",
]


class OpenAIEmbedding(BaseModel):
    """One input in OpenAI's form; ``object`` is ``error`` where it failed."""

    object: Literal["embedding", "error"]
    index: int
    embedding: list[float] | str | None
    error: Failure | None = None


class Usage(BaseModel):
    """Tokens of all texts, those that a tokenizer adds included; pictures have none."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbedded(NamedAnswer):
    """OpenAI's answer, and the digest."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    usage: Usage


class OpenAIModel(BaseModel):
    """A name under which the model may be asked."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="when this worker began, in seconds since 1970")]
    owned_by: str
    digest: str


class OpenAIModels(BaseModel):
    """The one model, by its name and its aliases."""

    object: Literal["list"]
    data: list[OpenAIModel]


class CohereEmbeddings(BaseModel):
    """Rows of each type that was asked for."""

    floats: Annotated[list[list[float]] | None, Field(alias="float")] = None
    base64: list[str] | None = None


class CohereEmbedded(NamedAnswer):
    """Cohere's answer, and the digest."""

    id: str
    response_type: Literal["embeddings_by_type"]
    embeddings: CohereEmbeddings
    texts: list[str] | None = None
    meta: dict[str, Any]


class ImageScores(BaseModel):
    """An image's scores, one a text in their order, or why there are none."""

    index: int
    scores: Annotated[
        list[float] | None, Field(description="logit_scale x cosine + logit_bias, as in training")
    ] = None
    cosines: list[float] | None = None
    error: Failure | None = None


class Similarities(NamedAnswer):
    """Scores of images and texts."""

    logit_scale: float
    logit_bias: float
    results: list[ImageScores]


class Ranked(BaseModel):
    """A document's place in the ranking."""

    index: Annotated[int, Field(description="in documents")]
    relevance_score: Annotated[float, Field(description="the cosine, from -1 to 1")]
    document: TextInput | None = None


class Unranked(BaseModel):
    """A document that has no embedding."""

    index: int
    error: Failure


class Reranked(NamedAnswer):
    """Documents, the nearest first."""

    id: str
    object: Literal["rerank"]
    results: list[Ranked]
    failed: list[Unranked]
    usage: Usage
    meta: dict[str, Any]


class ImmichClip(BaseModel):
    """Immich's answer for CLIP."""

    clip: Annotated[str, Field(description="the embedding, as JSON in a string")]
    imageHeight: int | None = None  # noqa: N815 (Immich's key)
    imageWidth: int | None = None  # noqa: N815


class Near(BaseModel):
    """A row of the index."""

    row: int
    name: str
    cosine: float
    thumbnail: Annotated[str | None, Field(description="data:image/jpeg;base64,")] = None


class Found(NamedAnswer):
    """Rows of the index, the nearest first."""

    count: Annotated[int, Field(description="rows of the index, all of which were looked at")]
    results: list[Near]
