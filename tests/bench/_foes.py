"""Attackers: ``python -m tests.bench._foes URL NAME SECONDS [IMAGE_SIZE]``, the answers as JSON.

Each is one of the attacks that the service was once stopped by, with what its rules now let through
at most: pictures as large as they may be, as many items as a request may have.
"""

import argparse
import contextlib
import io
import json
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import httpx
from PIL import Image

from tests.serving.attacks import (
    BOUNDARY,
    classification,
    cut_form,
    expanding_labels,
    flat_jpeg,
    flat_jpeg2000,
    flat_webp,
    form,
    many_labels,
    pictures,
    small_photo,
    texts_of_emoji,
    uniform_png,
)
from tests.serving.attacks import thin_png as thin

__all__ = ["FOES", "main"]

JSON, FORM = "application/json", f"multipart/form-data; boundary={BOUNDARY}"
GIVE_UP_S = 30.0  # for one answer, after its time is over
_TLS = ssl.create_default_context()  # made once: it costs an attacker more than a request
NICE = 10
"""An attacker is on another machine, but for here: the service and its clients have the processor
first."""


class Foe:
    """What attackers share: the address, the time they have, what they are told."""

    def __init__(self, url: str, seconds: float, image_size: int) -> None:
        self.url, self.image_size = url, image_size
        self.told: Counter[str] = Counter()
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def post(self, path: str, body: bytes, media: str = JSON, patience: float = GIVE_UP_S) -> None:
        """One request on a connection of its own."""
        try:
            with httpx.Client(timeout=patience, trust_env=False, verify=_TLS) as client:
                answer = client.post(self.url + path, content=body, headers={"content-type": media})
            self.told[str(answer.status_code)] += 1
        except httpx.HTTPError as error:
            self.told[type(error).__name__] += 1

    def again(self, clients: int, path: str, body: bytes, media: str = JSON, **more: float) -> None:
        """The same by so many clients, one after the other, until the time is over."""

        def one() -> None:
            while self.left > 0:
                self.post(path, body, media, **more)

        at_once(one for _ in range(clients))

    def connect(self, data: bytes = b"") -> socket.socket | None:
        """A connection that has sent so much; None where it was refused."""
        try:
            raw = socket.create_connection(("127.0.0.1", urlsplit(self.url).port or 80), timeout=5)
            raw.sendall(data)
        except OSError as error:
            self.told[type(error).__name__] += 1
            return None
        self.told["open"] += 1
        return raw

    def hold(self, connections: Iterable[socket.socket | None]) -> None:
        """Keep connections until the time is over."""
        held = [one for one in connections if one is not None]
        time.sleep(max(0.0, self.left))
        for one in held:
            one.close()


def at_once(functions: Iterable[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *lines, ""]).encode()


def template_bomb(foe: Foe) -> None:
    """90 kB that would expand to 6 MB of one prompt."""
    foe.again(1, "/v1/classify", expanding_labels(32_000, 200))


def labels_before_image(foe: Foe) -> None:
    """2,048 long labels for a picture that is none."""
    number = 0
    while foe.left > 0:
        labels, number = many_labels(2048, 70, number), number + 1
        foe.post("/v1/classify", classification(b"no picture", labels, ["{}"]))


def labels_backlog(foe: Foe) -> None:
    """Eight clients ask for 2,048 new labels each and leave after a second."""
    number = 10_000
    while foe.left > 0:
        bodies = [
            classification(small_photo(), many_labels(2048, 10, number + each), ["{}"])
            for each in range(8)
        ]
        number += 8
        at_once(
            lambda body=body: foe.post("/v1/classify", body, patience=1.0)  # type: ignore[misc]
            for body in bodies
        )


def disconnect(foe: Foe) -> None:
    """60 clients send a photo of 3 megapixels and leave after 0.15 s, again and again."""
    photo = flat_jpeg(2048, 1536)
    media, length = "Content-Type: image/jpeg", f"Content-Length: {len(photo)}"
    request = _head("/v1/embed/image", media, length, "") + photo

    def one() -> None:
        while foe.left > 0:
            raw = foe.connect(request)
            if raw is None:
                time.sleep(0.05)
                continue
            raw.settimeout(0.15)
            try:
                foe.told[raw.recv(16)[9:12].decode() or "closed"] += 1
            except OSError as error:
                foe.told[type(error).__name__] += 1
            raw.close()

    at_once(one for _ in range(60))


def stalled_bodies(foe: Foe) -> None:
    """256 requests whose body of 100 bytes never comes."""
    start = _head("/v1/embed/text", f"Content-Type: {JSON}", "Content-Length: 100", "")
    foe.hold([foe.connect(start) for _ in range(256)])


def stalled_uploads(foe: Foe) -> None:
    """100 uploads of 15 MB of which 100 kB come; anew when they are let go."""
    length = 15 * 2**20
    start = _head("/v1/embed/image", "Content-Type: image/jpeg", f"Content-Length: {length}", "")

    def one() -> None:
        while foe.left > 0:
            raw = foe.connect(start + bytes(100_000))
            if raw is None:
                return
            raw.settimeout(max(0.1, foe.left))
            with contextlib.suppress(OSError):
                raw.recv(1000)
            raw.close()

    at_once([one] * 100)


def headers_endless(foe: Foe) -> None:
    """Headers that never end, a megabyte a line."""
    while foe.left > 0:
        raw = foe.connect(b"GET /v1/model HTTP/1.1\r\nHost: a\r\n")
        if raw is None:
            break
        try:
            for number in range(256):
                raw.sendall(b"x%d: " % number + b"a" * 2**20 + b"\r\n")
        except OSError as error:
            foe.told[type(error).__name__] += 1
        raw.close()
        time.sleep(0.01)


def idle_connections(foe: Foe) -> None:
    """1,000 connections: half say nothing, half begin a header and stop."""
    foe.hold([foe.connect(b"" if number % 2 else b"GET /v1/mod") for number in range(1000)])


def webp_bomb(foe: Foe) -> None:
    """Two clients with 20 WebPs a request of 34 bytes and 64 megapixels each, or of 6."""
    stream = io.BytesIO()
    Image.new("RGB", (3000, 2000), "teal").save(stream, "WEBP", lossless=True, method=0)
    large, allowed = pictures(*[flat_webp(16)] * 20), pictures(*[stream.getvalue()] * 20)
    at_once(lambda body=body: foe.again(1, "/v1/embed/image", body) for body in (large, allowed))  # type: ignore[misc]


def jp2_bomb(foe: Foe) -> None:
    """JPEG 2000s, of which hundreds of bytes take a gigabyte."""
    foe.again(2, "/v1/embed/image", flat_jpeg2000(), "image/jp2")


def avif_bomb(foe: Foe) -> None:
    """AVIFs, of the same kind."""
    foe.again(2, "/v1/embed/image", b"\0\0\0\x20ftypavif" + bytes(64), "image/avif")


def ico_bomb(foe: Foe) -> None:
    """Icons that hold a PNG of 9,000 x 9,000."""
    icon = b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0\xff\xff\0\0\x16\0\0\0" + uniform_png(9000, 9000)
    foe.again(2, "/v1/embed/image", icon, "image/x-icon")


def thin_png(foe: Foe) -> None:
    """Two clients with 16 pictures a request that would be resized to 60 megapixels each."""
    foe.again(2, "/v1/embed/image", pictures(*[thin(foe.image_size)] * 16))


def text_behind_photos(foe: Foe) -> None:
    """Three clients with 15 photos of 12 megapixels a request."""
    foe.again(3, "/v1/embed/image", form([_photo()] * 15), FORM)


def many_photos_one_request(foe: Foe) -> None:
    """One client with 64 plain pictures of 12 megapixels a request."""
    foe.again(1, "/v1/embed/image", form([flat_jpeg(4000, 3000)] * 64), FORM)


def truncated_multipart(foe: Foe) -> None:
    """Eight clients with forms of 12 MB that lack their end; then connections that end within."""
    body = cut_form(12 * 2**20)
    foe.again(8, "/v1/embed/image", body, FORM)
    start = _head("/v1/embed/image", f"Content-Type: {FORM}", f"Content-Length: {len(body)}", "")
    for raw in [foe.connect(start + body[: len(body) // 2]) for _ in range(16)]:
        if raw is not None:
            raw.close()


def long_texts(foe: Foe) -> None:
    """64 texts of 32,768 emoji a request, and as many as may be."""
    at_once(
        lambda body=body: foe.again(1, "/v1/embed/text", body)  # type: ignore[misc]
        for body in (texts_of_emoji(64, 32_768), texts_of_emoji(64, 24_000))
    )


def _photo() -> bytes:
    """12 megapixels with some texture."""
    grain = Image.effect_noise((500, 375), 60).resize((4000, 3000))
    stream = io.BytesIO()
    Image.merge("RGB", (grain, grain, grain)).save(stream, "JPEG", quality=30)
    return stream.getvalue()


FOES: dict[str, Callable[[Foe], None]] = {
    attack.__name__: attack
    for attack in (
        *(template_bomb, labels_before_image, labels_backlog, disconnect, stalled_bodies),
        *(
            stalled_uploads,
            headers_endless,
            idle_connections,
            webp_bomb,
            jp2_bomb,
            avif_bomb,
            ico_bomb,
            thin_png,
        ),
        *(text_behind_photos, many_photos_one_request, truncated_multipart, long_texts),
    )
}


def main() -> None:
    """Attack, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("name", choices=FOES)
    parser.add_argument("seconds", type=float)
    parser.add_argument("image_size", type=int, nargs="?", default=224)
    asked = parser.parse_args()
    os.nice(NICE)
    foe = Foe(asked.url, asked.seconds, asked.image_size)
    FOES[asked.name](foe)
    print(json.dumps(foe.told))


if __name__ == "__main__":
    main()
