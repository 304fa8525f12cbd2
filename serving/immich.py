"""``/predict``: as the machine-learning container of Immich answers it for CLIP.

Immich knows models by an allow-list, and how many dimensions each has. A tuned model of the same
dimensions is served to it under such a name (``PTFT_ALIASES``). The shapes are those of Immich's
``machine-learning/immich_ml/main.py`` and ``machine-learning.repository.ts``.
"""

from typing import Any

from starlette.responses import Response

from ptft.errors import SampleError
from ptft.files.bounds import brief, given_twice, shown
from serving.answers import encode_pictures
from serving.asked import Asked
from serving.bodies import read_body
from serving.items import encode_items, read_item
from serving.multipart import MultipartForm, parse_form
from serving.openai import check_model
from serving.pictures import Picture
from serving.refusal import Refusal
from serving.state import json_bytes
from serving.strict_json import load_json

__all__ = ["predict"]

_FIELDS = 4  # of a form
_OPTIONS = ("language",)  # of a text; another language is no other model here


async def predict(asked: Asked) -> Response:
    """Answer a request: a picture or a text to its embedding."""
    form = await _read(asked)
    if (twice := given_twice(form.fields)) is not None:
        raise Refusal(422, "invalid", f"{brief(twice)}: it comes twice; allowed: once")
    fields = dict(form.fields)
    kind = _check_entries(asked, fields.get("entries"))
    if kind == "visual":
        if not form.files:
            raise Refusal(400, "invalid", "image: missing; clip.visual needs one")
        picture = asked.encoder.pictures.look(form.files[0], "image")
        (found,) = await encode_pictures(asked, [picture])
    else:
        if "text" not in fields:
            raise Refusal(400, "invalid", "text: missing; clip.textual needs one")
        picture = None
        (found,) = await encode_items(asked, [read_item(fields["text"], "text", "text")], "text")
    if isinstance(found, SampleError):
        raise Refusal(422, "unreadable", str(found))
    answer: dict[str, Any] = {"clip": json_bytes(found).decode()}
    if isinstance(picture, Picture):
        width, height = picture.header.size
        answer |= {"imageHeight": height, "imageWidth": width}
    return Response(json_bytes(answer), media_type="application/json")


async def _read(asked: Asked) -> MultipartForm:
    content_type = asked.request.headers.get("content-type", "")
    media = content_type.split(";")[0].strip().lower()
    if media != "multipart/form-data":
        what = f"content-type {media or 'absent'}: allowed: multipart/form-data"
        raise Refusal(415, "media_type", what)
    data = await read_body(asked.request, asked.ticket, asked.settings)
    size = len(data)
    form = await asked.apart(size, parse_form, content_type, data, 1, _FIELDS)
    data.clear()  # the parts are copies
    asked.ticket.release_memory(size)
    return form


def _check_entries(asked: Asked, given: str | None) -> str:
    """``visual`` or ``textual``, of ``{"clip": {KIND: {"modelName", "options"}}}``."""
    entries = load_json((given or "").encode(), "entries")
    tasks = entries if isinstance(entries, dict) else {}
    if list(tasks) != ["clip"]:
        raise Refusal(422, "invalid", f"entries: {shown(entries)}; allowed: the task clip alone")
    kinds = tasks["clip"] if isinstance(tasks["clip"], dict) else {}
    if list(kinds) not in (["visual"], ["textual"]):
        raise Refusal(422, "invalid", f"entries.clip: {shown(kinds)}; allowed: visual or textual")
    ((kind, entry),) = kinds.items()
    options = entry.get("options") or {} if isinstance(entry, dict) else None
    if not isinstance(options, dict) or not isinstance(entry.get("modelName"), str):
        what = f"entries.clip.{kind}: {shown(entry)}; allowed: modelName, and options"
        raise Refusal(422, "invalid", what)
    if unknown := sorted(set(options) - set(_OPTIONS)):
        what = f"entries.clip.{kind}.options.{brief(unknown[0])}: allowed: {', '.join(_OPTIONS)}"
        raise Refusal(422, "invalid", what)
    check_model(asked, entry["modelName"], f"entries.clip.{kind}.modelName")
    return str(kind)
