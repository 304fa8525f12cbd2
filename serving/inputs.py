"""Bodies to images, texts and options: multipart, raw or JSON, and never beyond the caps.

What a body holds is counted before it is looked at closely, and large ones are parsed in a thread,
so that nobody waits for them. URLs are refused, not fetched: a service that loads what it is told
to can be sent anywhere.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ptft.errors import SampleError, suggest
from ptft.files.bounds import brief, shown
from serving.asked import Asked
from serving.bodies import read_body
from serving.multipart import parse_form
from serving.phases import reads
from serving.pictures import Picture
from serving.refusal import Refusal
from serving.settings import Settings
from serving.strict_json import load_json

__all__ = [
    "check_characters",
    "decode_base64",
    "is_token_ids",
    "is_url",
    "numbered",
    "read_image_lists",
    "read_images",
    "read_json_body",
    "read_strings",
    "token_ids",
    "too_many",
]

M = TypeVar("M", bound=BaseModel)
_URL = re.compile(r"\s*(https?|ftp|file|s3|gs)://\S+\s*", re.IGNORECASE)
_URL_START = re.compile(r"\s{0,99}(https?|ftp|file|s3|gs)://", re.IGNORECASE)
_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w.+=-]+)*;base64,", re.IGNORECASE)
_MAX_PREFIX = 256  # characters of a data URI before its data
_MEDIA = "multipart/form-data, application/json, image/* or application/octet-stream"
_MAX_VALUES = 1 << 17  # commas of a JSON body, those in texts included: some 10 ms of parsing
_LABELS = ("labels", "templates")
_TOKEN_IDS = re.compile(rb'"input"\s*:\s*\[\s*\[?\s*-?\d')
_PIECE = 1 << 20  # characters of base64 that are decoded before others have their turn


async def read_images(
    asked: Asked, *, body: type[BaseModel], options: type[M], required: bool = True
) -> tuple[list[Picture | SampleError], M]:
    """Read images and options of whichever form the request has.

    Args:
        asked: its options stand in JSON beside ``images``, in form fields, or, with a raw
            image, in the query.
        body: what a JSON body must be; ``options`` and ``images``.
        options: what the rest must be.
        required: refuse a request without images.

    Raises:
        Refusal: naming the key, its value and what is allowed.
    """
    (pictures, *_), values = await read_image_lists(
        asked, ("images",), body=body, options=options, required=required
    )
    return pictures, values


@reads
async def read_image_lists(
    asked: Asked,
    keys: tuple[str, ...],
    *,
    body: type[BaseModel],
    options: type[M],
    required: bool = True,
) -> tuple[list[list[Picture | SampleError]], M]:
    """The same of several lists of images.

    Args:
        keys: of the lists, ``images`` first; a file of a form is of the key that its part is named
            by, of ``images`` where that is none of them, and a raw image is of ``images``.
    """
    request, settings = asked.request, asked.settings
    content_type = request.headers.get("content-type", "")
    media = content_type.split(";")[0].strip().lower()
    if media == "multipart/form-data":
        data = await read_body(request, asked.ticket, settings)
        size = len(data)
        read = await asked.apart(
            size, _read_form, asked, content_type, data, options, required, keys
        )
        asked.ticket.release_memory(size)
        return read
    if media == "application/json":
        values = await read_json_body(asked, body)
        rest = values.model_dump(exclude=set(keys), exclude_unset=True)
        pictures = []
        for key in keys:
            strings = getattr(values, key) or []
            pictures.append(await read_strings(asked, strings, numbered(key, len(strings))))
        return pictures, options.model_construct(**{**_defaults(options), **rest})
    if media.startswith("image/") or media == "application/octet-stream":
        pairs = request.query_params.multi_items() if request.scope["query_string"] else ()
        values_of = _parse_pairs(pairs, options)
        data = await read_body(request, asked.ticket, settings)
        picture = asked.encoder.pictures.look(bytes(data), "images[0]")
        asked.ticket.release_memory(len(data))
        return [[picture], *([] for _ in keys[1:])], values_of
    raise Refusal(415, "media_type", f"content-type {media or 'absent'}: allowed: {_MEDIA}")


def numbered(key: str, count: int) -> list[str]:
    """Places in a list, for messages."""
    return [f"{key}[{index}]" for index in range(count)]


async def read_strings(
    asked: Asked, strings: Sequence[str], places: Sequence[str]
) -> list[Picture | SampleError]:
    """Pictures of base64 or URLs, and the places that messages name; one that is none fails alone.

    Raises:
        Refusal: 422 for a URL that is not to be fetched; see ``Ticket.charge``.
    """
    urls = {at: text for at, text in enumerate(strings) if _URL_START.match(text)}
    for at, text in urls.items():
        asked.fetcher.check(text, places[at])
    size = sum(map(len, strings))
    found = await asked.apart(size, _look_at_strings, asked, strings, places)
    if urls:
        asked.watch()
        files = await asked.fetcher.get_all(
            [(url, places[at]) for at, url in urls.items()], asked.ticket
        )
        for at, file in zip(urls, files, strict=True):
            found[at] = file if isinstance(file, SampleError) else _look(asked, file, places[at])
    return found


def _look_at_strings(
    asked: Asked, strings: Sequence[str], places: Sequence[str]
) -> list[Picture | SampleError]:
    found = [decode_base64(text, name) for text, name in zip(strings, places, strict=True)]
    return [_look(asked, one, name) for one, name in zip(found, places, strict=True)]


def _look(asked: Asked, data: bytes | SampleError, place: str) -> Picture | SampleError:
    return data if isinstance(data, SampleError) else asked.encoder.pictures.look(data, place)


@reads
async def read_json_body(asked: Asked, kind: type[M]) -> M:
    """Read and check a JSON body.

    Raises:
        Refusal: 413 beyond the cap, 415 where it is no JSON, 422 naming the key.
    """
    media = asked.request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/json":
        raise Refusal(
            415, "media_type", f"content-type {media or 'absent'}: allowed: application/json"
        )
    body = await read_body(asked.request, asked.ticket, asked.settings)
    size = len(body)
    values = await asked.apart(size, _parse_json, body, kind, asked.settings)
    asked.ticket.release_memory(size)
    return values


def _parse_json(body: bytearray, kind: type[M], settings: Settings) -> M:
    if (commas := body.count(b",")) > _MAX_VALUES:
        if _TOKEN_IDS.search(body):
            raise token_ids("input")
        raise Refusal(413, "too_many_items", f"{commas} commas; allowed: at most {_MAX_VALUES}")
    values = load_json(body)
    body.clear()  # the values are copies
    if not isinstance(values, dict):
        raise Refusal(422, "invalid", f"body: {shown(values)}; allowed: a JSON object")
    for key, value in values.items():
        if isinstance(value, list):
            if key == "input" and is_token_ids(value):
                raise token_ids(key)
            limit = settings.max_prompts if key in _LABELS else settings.max_batch
            limit = settings.max_inputs if key in getattr(kind, "MANY", ()) else limit
            too_many(len(value), settings, limit, "items", brief(key))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error, kind) from None


def is_token_ids(value: list[Any]) -> bool:
    """Whether a list is one of token ids, or of lists of them."""
    first = value[0] if value else None
    first = first[0] if isinstance(first, list) and first else first
    return isinstance(first, int) and not isinstance(first, bool)


def token_ids(key: str) -> Refusal:
    """Of ids that another tokenizer made."""
    return Refusal(
        422,
        "token_ids",
        f"{key}: token ids; allowed: texts, since the ids are another tokenizer's and the answer "
        "would be wrong. LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False); "
        "LlamaIndex: OpenAILikeEmbedding",
    )


def decode_base64(text: str, name: str) -> bytes | SampleError:
    """base64, bare or as a data URI, to bytes; or why it is none."""
    prefix = _DATA_URI.match(text, 0, _MAX_PREFIX)
    start = prefix.end() if prefix else 0
    if (len(text) - start) % 4 or 0 <= text.find("=", start) < len(text) - 2:
        return SampleError(f"{name}: not base64: not whole groups of 4 characters")
    data = bytearray()
    try:
        for at in range(start, len(text), _PIECE):
            data += base64.b64decode(text[at : at + _PIECE], validate=True)
    except (binascii.Error, ValueError) as error:
        return SampleError(f"{name}: not base64: {error}")
    return bytes(data)


def is_url(text: str) -> bool:
    """Whether the whole of it is the address of something elsewhere."""
    return _URL.fullmatch(text) is not None


def too_many(
    count: int, settings: Settings, limit: int = 0, what: str = "items", key: str = ""
) -> None:
    """Refuse more items than a request may hold; ``limit`` 0 stands for ``max_batch``."""
    limit = limit or settings.max_batch
    if count > limit:
        where = f"{key}: " if key else ""
        raise Refusal(413, "too_many_items", f"{where}{count} {what}; allowed: at most {limit}")


def check_characters(texts: Sequence[str], settings: Settings, key: str = "texts") -> None:
    """Refuse texts that are too long together."""
    found = sum(map(len, texts))
    if found > settings.max_characters:
        raise Refusal(
            413,
            "too_many_characters",
            f"{key}: {found} characters; allowed: at most {settings.max_characters} "
            "(PTFT_MAX_CHARACTERS)",
        )


def _read_form(
    asked: Asked,
    content_type: str,
    body: bytearray,
    options: type[M],
    required: bool,
    keys: tuple[str, ...],
) -> tuple[list[list[Picture | SampleError]], M]:
    settings = asked.settings
    form = parse_form(content_type, body, settings.max_batch, 2 * settings.max_prompts)
    body.clear()  # the parts are copies
    if required and not form.files:
        raise Refusal(422, "no_images", "no part of the form is a file; send at least one image")
    values = _parse_pairs(form.fields, options)
    found: dict[str, list[Picture | SampleError]] = {key: [] for key in keys}
    for name, data in zip(form.names, form.files, strict=True):
        key = name if name in found else keys[0]
        found[key].append(asked.encoder.pictures.look(data, f"{key}[{len(found[key])}]"))
    return list(found.values()), values


def _parse_pairs(pairs: Iterable[tuple[str, str]], kind: type[M]) -> M:
    """Form fields or query parameters; a list is a key that stands several times."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        field = kind.model_fields.get(key)
        if field is not None and "list" in str(field.annotation):
            values.setdefault(key, []).append(value)
        elif key in values:
            raise Refusal(422, "invalid", f"{key}: given twice; allowed: once")
        else:
            values[key] = value
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error, kind) from None


def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    return {name: field.get_default() for name, field in kind.model_fields.items()}


def _explain(error: ValidationError, kind: type[BaseModel]) -> Refusal:
    """The first thing that is wrong, as key, value and what is allowed."""
    errors = error.errors(include_url=False, include_context=False)
    # a misspelt key before the key that is missing because of it
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ".".join(brief(str(part)) for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return Refusal(422, "invalid", f"{where}: unknown key; {suggest(key, kind.model_fields)}")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("json_invalid", "missing"):
        return Refusal(422, "invalid", f"{where}: {message}")
    return Refusal(422, "invalid", f"{where}: {message}; got {shown(first['input'])}")
