"""Multipart forms to files and fields, of a body that is all there, without a temporary file."""

import re
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.refusal import Refusal

__all__ = ["Form", "parse_form"]

_MAX_FIELD = 1 << 20  # bytes of a field that is no file


@dataclass
class Form:
    """Files and fields in the order in which they stand in the body."""

    files: list[bytes] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)


class _Parts:
    """What the parser calls; offsets are those of the one piece that it is given."""

    def __init__(self, max_files: int, max_fields: int) -> None:
        self.form = Form()
        self.ended = False
        self._max_files, self._max_fields = max_files, max_fields
        self._name = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._data = bytearray()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._read_disposition,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._end_all,
        }

    def _begin(self) -> None:
        self._headers, self._data = {}, bytearray()

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += bytes(data[start:end])

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += bytes(data[start:end])

    def _end_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _read_disposition(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise _wrong("a part whose content-disposition has no name")
        self._key = options[b"name"].decode("utf-8", "replace")
        self._is_file = b"filename" in options
        count, most, what = (
            (len(self.form.files), self._max_files, "images")
            if self._is_file
            else (len(self.form.fields), self._max_fields, "fields")
        )
        if count >= most:
            raise Refusal(413, "too_many_items", f"{most + 1} {what} or more; allowed: {most}")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file and len(self._data) + end - start > _MAX_FIELD:
            raise _wrong(f"{self._key:.80}: a field of more than {_MAX_FIELD} bytes")
        self._data += memoryview(data)[start:end]

    def _end(self) -> None:
        if self._is_file:
            self.form.files.append(bytes(self._data))
        else:
            self.form.fields.append((self._key, self._data.decode("utf-8", "replace")))
        self._data = bytearray()

    def _end_all(self) -> None:
        self.ended = True


def parse_form(content_type: str, body: bytes | bytearray, max_files: int, max_fields: int) -> Form:
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
    parts = _Parts(max_files, max_fields)
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)  # type: ignore[arg-type]  # a bytearray it reads as well
    except FormParserError as error:
        raise _wrong(re.sub(r"\s+", " ", str(error))) from None
    if not parts.ended:
        raise _wrong("the form ends before its last boundary: a part of it is missing")
    return parts.form


def _wrong(what: str) -> Refusal:
    return Refusal(422, "multipart", what)
