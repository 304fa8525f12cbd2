"""An app of the service within a test's own event loop, and a wait for what is to come."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serving.routes import create_app
from serving.settings import Settings
from serving.state import State

__all__ = ["started", "until"]


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[tuple[FastAPI, State]]:
    app = create_app(lambda: settings)
    async with app.router.lifespan_context(app):
        state: State = app.state.serving
        await until(lambda: state.encoder is not None)
        yield app, state


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")
