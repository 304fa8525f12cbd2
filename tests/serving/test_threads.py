"""Threads that tell an event loop what came of a call."""

import asyncio
import gc
import threading
import weakref

import pytest

from serving.threads import Threads, settle


class Pixels:
    """Something whose end can be seen."""


def fail(pixels: Pixels) -> None:
    raise ValueError("no picture")


def test_what_is_returned_and_raised_is_told_and_nothing_is_held() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        threads = Threads(1, "ptft-test")
        told = loop.create_future()
        threads.call(lambda found, error: settle(told, found, error), threading.get_ident)
        assert await told != threading.get_ident()
        failed = loop.create_future()
        pixels = Pixels()
        held = weakref.ref(pixels)
        threads.call(lambda found, error: settle(failed, found, error), fail, pixels)
        del pixels
        with pytest.raises(ValueError, match="no picture"):
            await failed
        failed = again = loop.create_future()
        gc.collect()  # of this test's own traceback
        threads.call(lambda found, error: settle(again, found, error), int, "3")
        assert await again == 3
        assert held() is None
        threads.join()
        with pytest.raises(RuntimeError, match="ptft-test: closed"):
            threads.call(settle, int)

    asyncio.run(play())


def test_nobody_is_told_of_what_nobody_waits_for() -> None:
    async def play() -> None:
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()
        settle(given_up, 1, None)
        settle(given_up, None, ValueError())
        assert given_up.cancelled()

    asyncio.run(play())
