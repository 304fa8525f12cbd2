"""``/v1/similarity`` and ``/v1/rerank``: what the model holds to be near."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from ptft.errors import SampleError
from serving.admission import Cost
from serving.answers import (
    BYTES_A_VALUE,
    Embeddings,
    encode_pictures,
    encode_texts,
    failure,
    status_of,
    write,
)
from serving.asked import REQUEST_ID, Asked
from serving.cohere import cohere_meta
from serving.inputs import read_images, read_json_body
from serving.items import count_pictures, encode_items
from serving.openai import check_model, usage
from serving.refusal import Refusal
from serving.schema_clients import Rerank, Similarity, SimilarityOptions

__all__ = ["rerank", "similarity"]


async def similarity(asked: Asked) -> Response:
    """Images against texts: cosines, and the logits by which the model ranks."""
    pictures, options = await read_images(asked, body=Similarity, options=SimilarityOptions)
    check_model(asked, options.model)
    size = len(pictures) * len(options.texts) * 2 * BYTES_A_VALUE
    asked.ticket.charge(Cost(memory=size))
    texts = await encode_texts(asked, options.texts)
    images = await encode_pictures(asked, pictures)
    return await asked.apart(size, _write_scores, asked, images, texts)


def _write_scores(asked: Asked, images: Embeddings, texts: Embeddings) -> Response:
    info = asked.encoder.model.info
    rows = np.stack([one for one in texts if not isinstance(one, SampleError)])
    results: list[dict[str, Any]] = []
    for index, one in enumerate(images):
        if isinstance(one, SampleError):
            results.append({"index": index, "error": failure(one)})
            continue
        cosines = rows @ one
        scores = np.float32(info.logit_scale) * cosines + np.float32(info.logit_bias)
        results.append({"index": index, "scores": scores, "cosines": cosines})
    return write(
        asked,
        "results",
        results,
        status_of(images),
        logit_scale=info.logit_scale,
        logit_bias=info.logit_bias,
    )


async def rerank(asked: Asked) -> Response:
    """Documents by their nearness to a query; each is a text or a picture."""
    body = await read_json_body(asked, Rerank)
    check_model(asked, body.model)
    if len(body.query) != 1:
        raise Refusal(422, "invalid", f"query: {len(body.query)} inputs; allowed: one")
    items = [*body.query, *body.documents]
    query, *found = await encode_items(asked, items, "documents")
    if isinstance(query, SampleError):
        raise Refusal(422, "unreadable", str(query))
    told = body.documents if body.return_documents else []
    size = len(found) * 2 * BYTES_A_VALUE + sum(len(item.value) for item in told)
    asked.ticket.charge(Cost(memory=size))
    pictures = count_pictures(items)
    return await asked.apart(size, _write_ranking, asked, query, found, pictures, body)


def _write_ranking(
    asked: Asked,
    query: NDArray[np.float32],
    found: Embeddings,
    pictures: int,
    body: Rerank,
) -> Response:
    good = [index for index, one in enumerate(found) if not isinstance(one, SampleError)]
    failed = [
        {"index": index, "error": failure(one)}
        for index, one in enumerate(found)
        if isinstance(one, SampleError)
    ]
    cosines = [float(np.dot(query, found[index])) for index in good]  # type: ignore[arg-type]
    results: list[dict[str, Any]] = []
    for at in np.argsort(-np.array(cosines), kind="stable")[: body.top_n]:
        ranked: dict[str, Any] = {"index": good[at], "relevance_score": cosines[at]}
        document = body.documents[good[at]]
        if body.return_documents and document.kind == "text":
            ranked["document"] = {"text": document.value}
        results.append(ranked)
    return write(
        asked,
        "results",
        results,
        status_of(found),
        id=asked.request.scope[REQUEST_ID],
        object="rerank",
        failed=failed,
        usage=usage(asked),
        meta=cohere_meta(asked, pictures),
    )
