"""``python -m tests.support.group_signal``: a signal to the group, and what a forked process ends
with."""

import os
import signal
import sys
import time
from multiprocessing.synchronize import Event

from ptft.forking import of_the_group_no_more, server_context

__all__: list[str] = []


def _work(ready: Event) -> None:
    of_the_group_no_more()
    ready.set()
    time.sleep(0.5)
    raise SystemExit(7)


def _main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)  # the first one decides: it goes on
    context = server_context("ptft.errors")
    ready = context.Event()
    process = context.Process(target=_work, args=(ready,))
    process.start()
    ready.wait(60)
    os.killpg(0, signal.SIGTERM)
    process.join(60)
    after = context.Process(target=_work, args=(ready,))
    after.start()
    after.join(60)
    sys.stdout.write(f"{process.exitcode} {after.exitcode}")


if __name__ == "__main__":
    _main()
