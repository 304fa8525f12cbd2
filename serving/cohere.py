"""``/v2/embed``: Cohere's, for texts and pictures."""

from starlette.responses import Response

from ptft.errors import SampleError
from serving.answers import BYTES_A_VALUE, Embeddings, write_embedding
from serving.asked import REQUEST_ID, Asked
from serving.inputs import read_json_body
from serving.items import count_pictures, encode_items
from serving.openai import check_model, cut, cut_dimensions
from serving.refusal import Refusal
from serving.schema_clients import CohereEmbed
from serving.state import json_bytes

__all__ = ["cohere_embed", "cohere_meta"]


async def cohere_embed(asked: Asked) -> Response:
    """Answer a request; its shape has no place for one input that fails, so all fail with it."""
    body = await read_json_body(asked, CohereEmbed)
    check_model(asked, body.model)
    dim = cut_dimensions(asked, body.output_dimension, "output_dimension")
    found = await encode_items(asked, body.items, body.key)
    failed = [one for one in found if isinstance(one, SampleError)]
    if failed:
        more = f" ({len(failed)} of {len(found)} failed)" if len(found) > 1 else ""
        raise Refusal(422, "unreadable", f"{failed[0]}{more}")
    kinds = list(dict.fromkeys(body.embedding_types or ["float"]))
    size = len(found) * asked.encoder.model.info.embed_dim * BYTES_A_VALUE * len(kinds)
    return await asked.apart(size, _write, asked, found, dim, kinds, body)


def cohere_meta(asked: Asked, images: int) -> dict[str, object]:
    """What Cohere's answers say beside."""
    units = {"input_tokens": asked.ticket.tokens, "images": images}
    return {"api_version": {"version": "2"}, "billed_units": units}


def _write(
    asked: Asked, found: Embeddings, dim: int, kinds: list[str], body: CohereEmbed
) -> Response:
    info = asked.encoder.model.info
    pictures = count_pictures(body.items)
    texts = [item.value for item in body.texts or ()] if not pictures else []
    head = json_bytes(
        {
            "id": asked.request.scope[REQUEST_ID],
            "response_type": "embeddings_by_type",
            "model": info.name,
            "digest": info.digest,
            "texts": texts or None,
            "meta": cohere_meta(asked, pictures),
        }
    )
    rows = [cut(one, dim) for one in found if not isinstance(one, SampleError)]
    written = [
        b'"%s":[%s]'
        % (kind.encode(), b",".join(json_bytes(write_embedding(r, kind)) for r in rows))
        for kind in kinds
    ]
    content = b"".join((head[:-1], b',"embeddings":{', b",".join(written), b"}}"))
    return Response(content, media_type="application/json")
