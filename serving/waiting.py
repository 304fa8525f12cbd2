"""Waiting for several things that belong together."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

__all__ = ["all_or_none"]

T = TypeVar("T")


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
