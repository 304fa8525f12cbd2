"""Headless Chromium driven by its DevTools protocol, over a pipe: no port, no other program.

``axe_script`` is axe-core's, from npm, in the user's cache: it is not part of this repository.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

__all__ = ["Missing", "Tab", "axe_script", "chromium"]

AXE = "axe-core@4.14.1"
_AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
_PATIENCE_S = 30.0


class Missing(Exception):  # noqa: N818 - what is absent is no error of a test
    """A program that a test drives is not here."""


def axe_script() -> str:
    """axe-core as one script; fetched by npm into the user's cache where it is not there yet.

    Raises:
        Missing: there is no npm, or it cannot fetch.
    """
    place = platformdirs.user_cache_path("ptft") / AXE.replace("@", "-")
    script = place / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        if shutil.which("npm") is None:
            raise Missing(f"no {AXE} in {place.parent}, and no npm to fetch it")
        place.mkdir(parents=True, exist_ok=True)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--no-save")
        command = ["npm", "install", "--prefix", str(place), *options, AXE]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (subprocess.SubprocessError, OSError) as error:
            raise Missing(f"npm cannot fetch {AXE}: {type(error).__name__}") from None
    data = script.read_bytes()
    assert hashlib.sha256(data).hexdigest() == _AXE_SHA256, f"{script}: not the {AXE} that is known"
    return data.decode()


@contextmanager
def chromium(home: Path) -> Iterator["Tab"]:
    """A tab of a browser that has no history, and ends with the block.

    Args:
        home: an empty folder, for its profile.

    Raises:
        Missing: it is not installed.
    """
    if shutil.which("chromium") is None:
        raise Missing("chromium is not installed")
    to_browser, from_browser = os.pipe(), os.pipe()
    words = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"),
        f"--user-data-dir={home / 'profile'}",
        "about:blank",
    ]
    # it reads commands from 3 and writes answers to 4
    shell = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
    fds = (to_browser[0], from_browser[1])
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *map(str, fds), *words],
        pass_fds=fds,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for fd in fds:
        os.close(fd)
    try:
        yield Tab(to_browser[1], from_browser[0])
    finally:
        process.kill()
        process.wait()
        os.close(to_browser[1])
        os.close(from_browser[0])


class Tab:
    """One page of a browser.

    Attributes:
        asked: addresses of all that was asked for.
        problems: what the browser refused or failed at, in its words.
    """

    def __init__(self, write: int, read: int) -> None:
        self.asked: list[str] = []
        self.problems: list[str] = []
        self._write, self._read = write, read
        self._session: str | None = None
        self._number = 0
        self._rest = b""
        targets = self.send("Target.getTargets")["targetInfos"]
        (target,) = [one["targetId"] for one in targets if one["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Call the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != self._number:
            self._note(found)
        assert "error" not in found, f"{method}: {found['error']}"
        return found["result"]

    def open(self, address: str) -> None:
        """Load a page."""
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Evaluate an expression of JavaScript; a promise is awaited."""
        found = self.send(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            allowUnsafeEvalBlockedByCSP=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        until = time.monotonic() + _PATIENCE_S
        while not self.run(f"Boolean({condition})"):
            text = self.run("document.body?.innerText")
            assert time.monotonic() < until, f"{condition} does not come; {self.problems}; {text}"
            time.sleep(0.05)

    def choose(self, selector: str, file: Path) -> None:
        """Give a file to an input."""
        document = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and let go of a key."""
        values = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **values)
        self.send("Input.dispatchKeyEvent", type="keyUp", **values)

    def show_as(self, *, width: int, scheme: str) -> None:
        """Set the width in pixels, and ``light`` or ``dark``."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.send("Emulation.setEmulatedMedia", features=features)

    def picture(self, file: Path) -> None:
        """Save the whole page as a PNG."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 16)
            assert part, "chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        values = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(values["request"]["url"])
            case "Log.entryAdded":
                self.problems.append(values["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.problems.append(str(values["exceptionDetails"]))
