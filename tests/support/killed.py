"""Runs in a process that may be killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptft.recipe import dump_recipe
from tests.support.runs import recipe
from tests.support.warm import Child, Warm


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("output")) as running:
        yield running


def start(
    warm: Warm, folder: Path, *options: str, limit: int | None = None, **changes: Any
) -> Child:
    path = folder.with_name("recipe.yaml")
    path.write_text(dump_recipe(recipe(folder, **changes)))
    return warm.ptft("train", path, *options, largest_file=limit)
