"""Kill -9 a push at 50 random moments: the Hub shows the old version or the new one, whole.

The pushes are the command itself, forked from a process that has imported everything, to a Hub on
loopback whose uploads take a moment each, so that kills fall within them too. After each kill every
revision that the branch has had since is compared with the two versions, and the branch is pulled,
which holds every byte against its record. Then the push is run again: it has to complete, and bytes
of files that the Hub had whole when the kill came are counted.
"""

import random
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ptft.hub import pull_model
from tests.support.hub_parts import REPO_ID, environment, folder_bytes, hub_bytes, make_folder
from tests.support.loopback_hub import LoopbackHub
from tests.support.warm import Warm

KILLS = 50
LARGE, SIZE = 2, 6_000_000  # large files beside two small ones; bytes, more than a socket buffers
PIECE_S = 0.001  # that the Hub takes over 64 KiB of an upload, as one far away would


@dataclass
class Outcome:
    """What was seen of one kill and the push after it."""

    phase: str
    whole: bool
    completed: bool
    resent: int
    sent: int


def make_version(folder: Path, number: int, size: int) -> Path:
    """A model folder of which every file differs from those of other versions."""
    draw = random.Random(number)
    large = {f"onnx/tower-{index}.onnx": draw.randbytes(size) for index in range(LARGE)}
    return make_folder(folder / f"v{number}", number, **large)


def slow_down(hub: LoopbackHub) -> None:
    """Let uploads take a while: the Hub reads them piece by piece, out of a small buffer."""

    class Slow(hub._server.RequestHandlerClass):
        def setup(self) -> None:
            super().setup()
            read = self.rfile.read1

            def read_slowly(size: int) -> bytes:
                time.sleep(PIECE_S)
                return read(size)

            self.rfile.read1 = read_slowly

    hub._server.RequestHandlerClass = Slow
    hub._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)


def settle() -> None:
    """Wait until the Hub has dealt with what a killed client had sent."""
    while any("process_request" in thread.name for thread in threading.enumerate()):
        time.sleep(0.002)


def history(hub: LoopbackHub, before: str) -> list[dict[str, bytes]]:
    """What the branch held, newest first, back to the commit ``before``."""
    ids = [commit.id for commit in hub.repos[REPO_ID].history()]
    return [hub_bytes(hub, commit) for commit in ids[: ids.index(before) + 1]]


def phase(hub: LoopbackHub, before: str, arrived: int) -> str:
    """How far a killed push had come."""
    if hub.repos[REPO_ID].head().id != before:
        return "committed"
    if arrived == LARGE + 2:
        return "all uploaded"
    if hub.calls("/lfs-upload/"):
        return "uploading"
    return "looking" if hub.requests else "starting"


def killed(
    warm: Warm, hub: LoopbackHub, old: Path, new: Path, delay: float, scratch: Path
) -> Outcome:
    """Kill the push of ``new`` over ``old`` after ``delay`` seconds, look, and push again."""
    repo, versions = hub.repos[REPO_ID], (folder_bytes(old), folder_bytes(new))
    before, stored = repo.head().id, len(repo.objects)
    hub.requests.clear()
    child = warm.ptft("push", new, REPO_ID)
    time.sleep(delay)
    child.kill()
    child.wait()
    settle()
    have = set(repo.objects)
    far = phase(hub, before, len(have) - stored)
    shutil.rmtree(scratch, ignore_errors=True)
    pulled = pull_model(REPO_ID, scratch / "dest", endpoint=hub.url, cache_dir=scratch / "cache")
    whole = folder_bytes(pulled) == versions[far == "committed"]
    hub.requests.clear()
    again = warm.ptft("push", new, REPO_ID)
    completed = again.wait() == 0 and hub_bytes(hub) == versions[1]
    assert completed, again.err.read_text()
    uploads = hub.calls("/lfs-upload/", "PUT")
    return Outcome(
        phase=far,
        whole=whole and all(held in versions for held in history(hub, before)),
        completed=completed,
        resent=sum(call.received for call in uploads if call.path.split("/")[-1] in have),
        sent=hub.bytes_received,
    )


def run(*, smoke: bool = False) -> dict[str, float]:
    kills, size = (1, 100_000) if smoke else (KILLS, SIZE)
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    draw, outcomes = random.Random(0), []
    with tempfile.TemporaryDirectory() as name, LoopbackHub() as hub:
        folder = Path(name)
        slow_down(hub)
        with Warm(folder, environment(hub, folder / "home")) as warm:
            seconds = 0.0
            for number in range(2):  # the second is of an existing repository, as all after it are
                old = make_version(folder, number, size)
                started = time.monotonic()
                assert warm.ptft("push", old, REPO_ID).wait() == 0
                seconds = time.monotonic() - started
            for number in range(2, kills + 2):
                new = make_version(folder, number, size)
                delay = draw.uniform(0.0, seconds)
                outcomes.append(killed(warm, hub, old, new, delay, folder / "scratch"))
                shutil.rmtree(old)
                old = new
    sent = sum(outcome.sent for outcome in outcomes) / 1e6
    print(f"a push that nothing interrupts took {seconds:.2f} s")
    print(f"large files sent by the pushes after the kills: {sent:.1f} MB")
    print(f"{'killed while':<16}{'kills':>6}{'whole':>7}{'completed':>11}")
    for far, count in Counter(outcome.phase for outcome in outcomes).items():
        of_it = [outcome for outcome in outcomes if outcome.phase == far]
        whole, done = sum(o.whole for o in of_it), sum(o.completed for o in of_it)
        print(f"{far:<16}{count:>6}{whole:>7}{done:>11}")
    return {
        "kills": len(outcomes),
        "half_published": sum(not outcome.whole for outcome in outcomes),
        "completed": sum(outcome.completed for outcome in outcomes),
        "bytes_sent_twice": sum(outcome.resent for outcome in outcomes),
        "killed_while_uploading": sum(outcome.phase == "uploading" for outcome in outcomes),
    }


BARS = {
    "kills": (">=", 50),
    "half_published": ("<=", 0),
    "completed": (">=", 50),
    "bytes_sent_twice": ("<=", 0),
    "killed_while_uploading": (">=", 5),
}
