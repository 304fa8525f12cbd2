"""``python3 -m ptft.launch.notice PID``: sends SIGTERM to a process whose machine is taken away.

Google's Compute Engine and Amazon's EC2 say so to whoever asks on the machine, 30 seconds and two
minutes before; a process in a container, or under a launcher that is not asked to stop, hears
nothing else. Asked is the machine's own metadata server, every few seconds, without credentials:
https://cloud.google.com/compute/docs/instances/create-use-spot and
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html.
"""

import os
import signal
import sys
import time
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

__all__ = ["METADATA", "await_notice", "is_taken_away"]

METADATA = "http://169.254.169.254"
"""The address of the metadata server on machines of either cloud."""
_EVERY = 5.0  # seconds, as EC2's page asks for
_MOST = 10_000  # bytes of an answer
_FAILURES = 3  # without an answer: there is no such server here


def is_taken_away(address: str = METADATA) -> bool:
    """Whether this machine is about to be taken away.

    Raises:
        OSError: there is no metadata server.
    """
    google = _asked(f"{address}/computeMetadata/v1/instance/preempted", "Metadata-Flavor: Google")
    if google is not None:
        return google.strip().upper() == "TRUE"
    token = _asked(
        f"{address}/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60", method="PUT"
    )
    given = f"X-aws-ec2-metadata-token: {token or ''}"
    return _asked(f"{address}/latest/meta-data/spot/instance-action", given) is not None


def await_notice(pid: int, address: str = METADATA, *, every: float = _EVERY) -> bool:
    """Send SIGTERM to the process once its machine is about to be taken away.

    Returns:
        Whether it was; False where the process has ended, or no metadata server answers.
    """
    failures = 0
    while failures < _FAILURES:
        try:
            taken = is_taken_away(address)
            failures = 0
        except OSError:
            taken, failures = False, failures + 1
        try:
            os.kill(pid, signal.SIGTERM if taken else 0)
        except ProcessLookupError:
            return False
        if taken:
            return True
        time.sleep(every)
    return False


def _asked(url: str, header: str, *, method: str = "GET") -> str | None:
    """The answer; None: there is no such thing on this machine."""
    name, _, value = header.partition(": ")
    request = Request(url, headers={name: value}, method=method)  # noqa: S310 - http alone
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=_EVERY) as answer:
            text: bytes = answer.read(_MOST)
    except HTTPError as error:
        error.close()
        return None
    return text.decode(errors="replace")


if __name__ == "__main__":
    await_notice(int(sys.argv[1]))
