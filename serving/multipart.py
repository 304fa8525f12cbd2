"""Multipart forms to files and fields, of a body that is all there.

The whole body is at hand, so parts are found by their boundary (RFC 2046, 5.1.1) and copied once;
libraries that parse a stream copy a file two or three times, or write it to a disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from python_multipart.multipart import parse_options_header

from serving.refusal import Refusal

__all__ = ["MultipartForm", "parse_form"]

_MAX_FIELD = 1 << 20  # bytes of a field that is no file
_MAX_HEADER = 8 << 10  # bytes of a part's header


@dataclass
class MultipartForm:
    """Files and fields in the order in which they stand in the body.

    Attributes:
        names: of the parts that the files are, in their order.
    """

    files: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)


def parse_form(
    content_type: str, body: bytes | bytearray, max_files: int, max_fields: int
) -> MultipartForm:
    """Files and fields of a form.

    Args:
        content_type: the request's header, with the boundary.

    Raises:
        Refusal: 422 where it is no form, or ends before its last boundary; 413 too many parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _wrong("content-type multipart/form-data lacks a boundary")
    form = MultipartForm()
    for header, start, end in _parts(body, b"--" + boundary):
        _, options = parse_options_header(_disposition(header))
        if b"name" not in options:
            raise _wrong("a part whose content-disposition has no name")
        name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            _check_count(len(form.files), max_files, "images")
            form.files.append(bytes(memoryview(body)[start:end]))
            form.names.append(name)
            continue
        _check_count(len(form.fields), max_fields, "fields")
        if end - start > _MAX_FIELD:
            raise _wrong(f"{name:.80}: a field of more than {_MAX_FIELD} bytes")
        form.fields.append((name, body[start:end].decode("utf-8", "replace")))
    return form


def _parts(body: bytes | bytearray, delimiter: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Header of each part, and where its data begins and ends."""
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if at == 1:
        raise _wrong("no boundary in the body")
    while True:
        at += len(delimiter)
        if body[at : at + 2] == b"--":
            return
        line = body.find(b"\r\n", at, at + _MAX_HEADER)
        if line < 0 or body[at:line].strip(b" \t"):
            raise _cut()
        # the empty line behind the header; its first end may be the boundary line's own
        blank = body.find(b"\r\n\r\n", line, line + _MAX_HEADER)
        if blank < 0:
            if len(body) > line + _MAX_HEADER:
                raise _wrong(f"a part's header of more than {_MAX_HEADER} bytes")
            raise _cut()
        end = body.find(b"\r\n" + delimiter, blank + 2)
        if end < 0:
            raise _cut()
        yield bytes(body[line + 2 : blank]), min(blank + 4, end), end
        at = end + 2


def _disposition(header: bytes) -> bytes:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return value.strip()
    return b""


def _check_count(count: int, most: int, what: str) -> None:
    if count >= most:
        raise Refusal(413, "too_many_items", f"{most + 1} {what} or more; allowed: {most}")


def _cut() -> Refusal:
    return _wrong("the form ends before its last boundary: a part of it is missing")


def _wrong(what: str) -> Refusal:
    return Refusal(422, "multipart", what)
