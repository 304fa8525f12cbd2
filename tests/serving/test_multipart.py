"""Forms: what is in them, and that half a form is none."""

import httpx
import pytest

from serving.multipart import parse_form
from serving.refusal import Refusal

TYPE = "multipart/form-data; boundary=XbX"


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--XbX\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def test_a_form_of_httpx() -> None:
    files = [("images", ("a.png", bytes(range(256)) * 9)), ("images", ("b", b"\r\n--XbX-\r\n"))]
    request = httpx.Request(
        "POST", "http://a", files=files, data={"labels": ["cat", "hund \N{DOG}"], "top_k": "2"}
    )
    form = parse_form(request.headers["content-type"], request.read(), 9, 9)
    assert form.files == [data for _, (_, data) in files]
    assert form.fields == [("labels", "cat"), ("labels", "hund \N{DOG}"), ("top_k", "2")]


def test_a_form_cut_anywhere_is_none() -> None:
    whole = part("images", b"one", "a") + part("images", b"two", "b") + b"--XbX--\r\n"
    assert len(parse_form(TYPE, whole, 9, 9).files) == 2
    assert len(parse_form(TYPE, whole.rstrip(), 9, 9).files) == 2
    for end in range(len(whole) - 4):
        with pytest.raises(Refusal) as caught:
            parse_form(TYPE, whole[:end], 9, 9)
        assert (caught.value.status, caught.value.kind) == (422, "multipart")


@pytest.mark.parametrize(
    ("kind", "body", "status", "part_of_message"),
    [
        ("multipart/form-data", b"", 422, "lacks a boundary"),
        (TYPE, b"no form", 422, ""),
        (TYPE, part("images", b"x", "a") * 4 + b"--XbX--\r\n", 413, "4 images or more; allowed: 3"),
        (TYPE, part("labels", b"x") * 3 + b"--XbX--\r\n", 413, "3 fields or more; allowed: 2"),
        (TYPE, part("labels", b"x" * (1 << 21)) + b"--XbX--\r\n", 422, "a field of more than"),
        (TYPE, b"--XbX\r\nA: " + b"b" * 9000 + b"\r\n\r\n\r\n--XbX--", 422, "header"),
        (TYPE, b"--XbX\r\nA: b\r\n\r\nx\r\n--XbX--\r\n", 422, "no name"),
    ],
)
def test_wrong_forms(kind: str, body: bytes, status: int, part_of_message: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_form(kind, body, 3, 2)
    assert caught.value.status == status
    assert part_of_message in str(caught.value)
