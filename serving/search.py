"""``/v1/search``: the rows of the mounted index (``PTFT_INDEX``) that are nearest to a query."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from ptft.errors import SampleError
from ptft.index import Index
from serving.admission import Cost
from serving.answers import encode_pictures, write
from serving.asked import Asked
from serving.inputs import read_images, read_json_body
from serving.items import encode_items
from serving.refusal import Refusal
from serving.schema_clients import Search, SearchOptions, SearchPicture

__all__ = ["search"]

_S_A_BYTE = 1e-9  # of products with embeddings that are mapped; some 5e-10 where they are in memory
_BYTES_A_ROW = 4096  # of an answer, its name; and a thumbnail
_BYTES_A_THUMBNAIL = 16_384


async def search(asked: Asked) -> Response:
    """Answer a request: a JSON body with ``query``, or a picture as a form or as it is."""
    if asked.index is None:
        raise Refusal(404, "no_index", "no index is mounted (PTFT_INDEX)")
    if _media(asked) == "application/json":
        body = await read_json_body(asked, Search)
        if len(body.query) != 1:
            raise Refusal(422, "invalid", f"query: {len(body.query)} inputs; allowed: one")
        found, options = (
            await encode_items(asked, body.query, "query"),
            SearchOptions(k=body.k, thumbnails=body.thumbnails),
        )
    else:
        pictures, options = await read_images(asked, body=SearchPicture, options=SearchOptions)
        if len(pictures) != 1:
            raise Refusal(422, "invalid", f"images: {len(pictures)} images; allowed: one")
        found = await encode_pictures(asked, pictures)
    (query,) = found
    if isinstance(query, SampleError):
        raise Refusal(422, "unreadable", str(query))
    each = _BYTES_A_ROW + _BYTES_A_THUMBNAIL * options.thumbnails
    seconds = asked.index.nbytes * _S_A_BYTE
    asked.ticket.charge(Cost(memory=each * options.k, work=seconds, best_work=seconds))
    return await asked.apart_for(seconds, _answer, asked, asked.index, query, options)


def _media(asked: Asked) -> str:
    return asked.request.headers.get("content-type", "").split(";")[0].strip().lower()


def _answer(
    asked: Asked, index: Index, query: NDArray[np.float32], options: SearchOptions
) -> Response:
    results: list[dict[str, Any]] = []
    for near in index.search(query, options.k):
        found: dict[str, Any] = {"row": near.row, "name": near.name, "cosine": near.cosine}
        if options.thumbnails and (picture := index.thumbnail(near.row)) is not None:
            found["thumbnail"] = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
        results.append(found)
    return write(asked, "results", results, 200, count=index.info.count)
