"""Processes that are forked from a server, and what a signal to the whole group is to them.

A terminal, ``timeout``, systemd and Slurm send a signal to all processes of a group. The first one
decides what becomes of it; the server and what is forked from it let it pass.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection
from typing import Any

__all__ = ["of_the_group_no_more", "server_context"]

_TO_A_GROUP = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # Windows lacks the last two


def server_context(preload: str) -> Any:
    """The context whose processes are forked from a server that has imported a module and runs no
    threads, so that neither locks nor thread pools nor a CUDA context of this process reach them.
    They are spawned where there is no forking.

    Args:
        preload: the module.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    resource_tracker.ensure_running()  # as it starts it lets SIGINT and SIGTERM in again
    # a server that ends takes the news of its children with it: each would count as ended
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _numbers())
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def of_the_group_no_more() -> None:
    """To be called by such a process, as it begins: let signals to the group pass, and end when the
    one that wanted it has ended, for which it was forked by another."""
    for number in _numbers():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _numbers())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _numbers() -> set[signal.Signals]:
    return {getattr(signal, name) for name in _TO_A_GROUP if hasattr(signal, name)}


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
