"""Request bodies to images, texts and options: multipart, raw or JSON, and never beyond the caps.

URLs are refused, not fetched: a service that loads what it is told to can be sent anywhere.
"""

import base64
import binascii
import re
from collections.abc import AsyncGenerator, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ptft.errors import SampleError, suggest
from serving.refusal import Refusal
from serving.settings import Settings

__all__ = ["decode_base64", "is_url", "read_images", "read_json_body", "too_many"]

M = TypeVar("M", bound=BaseModel)
_URL = re.compile(r"\s*(https?|ftp|file|s3|gs)://\S+\s*", re.IGNORECASE)
_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w.+=-]+)*;base64,", re.IGNORECASE)
_MEDIA = "multipart/form-data, application/json, image/* or application/octet-stream"


async def read_images(
    request: Request,
    settings: Settings,
    *,
    body: type[BaseModel],
    options: type[M],
    required: bool = True,
) -> tuple[list[bytes | SampleError], M]:
    """Read images and options of whichever form the request has.

    Args:
        request: its options stand in JSON beside ``images``, in form fields, or, with a raw
            image, in the query.
        settings: the caps.
        body: what a JSON body must be; ``options`` and ``images``.
        options: what the rest must be.
        required: refuse a request without images.

    Raises:
        Refusal: naming the key, its value and what is allowed.
    """
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media == "multipart/form-data":
        return await _read_multipart(request, settings, options, required=required)
    if media == "application/json":
        values = await read_json_body(request, settings, body)
        strings = values.images or []  # type: ignore[attr-defined]
        too_many(len(strings), settings)
        items = [decode_base64(text, f"images[{index}]") for index, text in enumerate(strings)]
        rest = values.model_dump(exclude={"images"}, exclude_unset=True)
        return items, options.model_construct(**{**_defaults(options), **rest})
    if media.startswith("image/") or media == "application/octet-stream":
        values_of = _parse_pairs(request.query_params.multi_items(), options)
        return [await _read_body(request, settings.max_body_bytes)], values_of
    raise Refusal(415, "media_type", f"content-type {media or 'absent'}: allowed: {_MEDIA}")


async def read_json_body(request: Request, settings: Settings, kind: type[M]) -> M:
    """Read and check a JSON body.

    Raises:
        Refusal: 413 beyond the cap, 415 where it is no JSON, 422 naming the key.
    """
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/json":
        raise Refusal(
            415, "media_type", f"content-type {media or 'absent'}: allowed: application/json"
        )
    body = await _read_body(request, settings.max_body_bytes)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _explain(error, kind) from None


def decode_base64(text: str, name: str) -> bytes | SampleError:
    """base64, bare or as a data URI, to bytes; or why it is none.

    Raises:
        Refusal: 422 for a URL.
    """
    if is_url(text):
        raise Refusal(
            422,
            "url_refused",
            f"{name}: {text.strip():.80}: URLs are never fetched; "
            "send the image's bytes, as base64 or data:image/...;base64,",
        )
    if prefix := _DATA_URI.match(text):
        text = text[prefix.end() :]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return SampleError(f"{name}: not base64: {error}")


def is_url(text: str) -> bool:
    """Whether the whole of it is the address of something elsewhere."""
    return _URL.fullmatch(text) is not None


def too_many(count: int, settings: Settings, limit: int = 0, what: str = "items") -> None:
    """Refuse more items than a request may hold; ``limit`` 0 stands for ``max_batch``."""
    limit = limit or settings.max_batch
    if count > limit:
        raise Refusal(413, "too_many_items", f"{count} {what}; allowed: at most {limit}")


async def _pieces(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces, refused as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(int(declared), limit)
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(size, limit)
        yield piece


def _too_large(size: int, limit: int) -> Refusal:
    message = f"a body of {size} bytes or more; allowed: at most {limit} (PTFT_MAX_BODY_BYTES)"
    return Refusal(413, "body_too_large", message)


async def _read_body(request: Request, limit: int) -> bytes:
    return b"".join([piece async for piece in _pieces(request, limit)])


async def _read_multipart(
    request: Request, settings: Settings, options: type[M], *, required: bool
) -> tuple[list[bytes | SampleError], M]:
    parser = MultiPartParser(
        request.headers,
        _pieces(request, settings.max_body_bytes),
        max_files=settings.max_batch,
        max_fields=settings.max_prompts,
    )
    parser.spool_max_size = settings.max_body_bytes  # in memory: the disk may be read-only
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            too_many(settings.max_batch + 1, settings, what="images or more")
        raise Refusal(422, "multipart", error.message) from None
    except KeyError:
        raise Refusal(
            422, "multipart", "content-type multipart/form-data lacks a boundary"
        ) from None
    files: list[bytes | SampleError] = []
    pairs: list[tuple[str, str]] = []
    try:
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                files.append(await part.read())
            else:
                pairs.append((name, part))
    finally:
        await form.close()
    if required and not files:
        raise Refusal(422, "no_images", "no part of the form is a file; send at least one image")
    return files, _parse_pairs(pairs, options)


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
    errors = error.errors(include_url=False)
    # a misspelt key before the key that is missing because of it
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ".".join(str(part) for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return Refusal(422, "invalid", f"{where}: unknown key; {suggest(key, kind.model_fields)}")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("json_invalid", "missing"):
        return Refusal(422, "invalid", f"{where}: {message}")
    value = repr(first["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return Refusal(422, "invalid", f"{where}: {message}; got {shown}")
