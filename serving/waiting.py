"""Waiting for several things that belong together."""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["all_or_none", "items_with_queries"]

T = TypeVar("T")
Q = TypeVar("Q")


async def all_or_none(waited: Iterable[Awaitable[T]]) -> list[T]:
    """As ``asyncio.gather``; but where one fails or the caller is cancelled, so are the others."""
    waiting = list(waited)
    if len(waiting) == 1:
        return [await waiting[0]]
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


async def items_with_queries(
    items: Coroutine[Any, Any, T], queries: Coroutine[Any, Any, Q], readable: asyncio.Event
) -> tuple[T, Q | None]:
    """Items, and what they are held against, side by side; what goes wrong with the queries is
    raised before the items are through.

    Args:
        queries: begins its work once ``readable`` is set, by the first item that can be read.

    Returns:
        Both; None for the queries where no item could be read.
    """
    asked = asyncio.ensure_future(queries)
    found = asyncio.ensure_future(items)
    try:
        await asyncio.wait((found, asked), return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            asked.result()
        done = await found
        return done, await asked if readable.is_set() else None
    finally:
        found.cancel()
        asked.cancel()
