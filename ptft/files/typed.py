"""JSON files of others, held to the types of a dataclass before anything is made of them."""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ptft.errors import ArtifactError
from ptft.files.bounds import parse_json, read_bytes

__all__ = ["read_as"]

T = TypeVar("T")


def read_as(path: Path, kind: type[T]) -> T:
    """What a file holds, as ``kind``: a dataclass, or a dict or list of such.

    Raises:
        ArtifactError: it is absent, no JSON, or a value is of another type; in one line.
    """
    values = parse_json(read_bytes(path, error=ArtifactError), path, error=ArtifactError)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part)[:40] for part in first["loc"])
        raise ArtifactError(f"{path}: {key}: {first['msg']}") from None
