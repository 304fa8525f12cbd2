"""Two machines for real: network namespaces with a link that is cut, and a node that is killed.

Each run is held against one that nothing interrupts. Ranks are started as torchrun starts them;
torchrun itself is in ``python -m tests.bench resume_anywhere``.
"""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ptft.errors import LostRankError
from ptft.recipe import dump_recipe
from tests.support.runs import largest_difference, recipe
from tests.support.two_nodes import HELD_AT, TwoNodes, UnmadeError, read_samples, two_nodes
from tests.support.warm import Child, Warm

STEPS, BATCH, LOST_AFTER = 12, 16, 2
LOST = LostRankError.exit_code


@dataclass
class Place:
    """Where runs are started, and the one that nothing interrupts."""

    folder: Path
    nodes: TwoNodes
    warm: Warm

    @property
    def hold(self) -> Path:
        return self.folder / "hold"

    def start(self, name: str, count: int = 2) -> list[Child]:
        """The command on the first node alone or on both."""
        path = self.folder / f"{name}.yaml"
        changes = {"optim__samples_seen": STEPS * BATCH, "run__threads": 1, "run__page": False}
        changes |= {"run__lost_after_seconds": LOST_AFTER}
        path.write_text(dump_recipe(recipe(self.folder / name, **changes)))
        words = ("train", path, "--resume", "auto")
        watched = {"samples": self.folder / f"{name}.samples", "hold": self.hold}
        return [
            node.rank(self.warm, rank, count, *words, **watched)
            for rank, node in enumerate(self.nodes[:count])
        ]

    @contextlib.contextmanager
    def held(self, name: str, count: int = 2) -> Iterator[list[Child]]:
        """Within, a start that waits in the middle, which goes on at the end."""
        self.hold.touch()
        ranks = self.start(name, count)
        logs = [self.folder / f"{name}.samples" / str(rank.pid) for rank in ranks]
        try:
            for rank, log in zip(ranks, logs, strict=True):
                assert rank.wait_until(lambda log=log: _lines(log) >= HELD_AT), said(ranks)  # type: ignore[misc]
            yield ranks
        finally:
            self.hold.unlink()

    def ends_as_the_whole(self, name: str, ranks: list[Child], within: float = 0.0) -> None:
        assert [rank.wait() for rank in ranks] == [0] * len(ranks), said(ranks)
        assert largest_difference(self.folder / "whole", self.folder / name) <= within
        found = read_samples(self.folder / f"{name}.samples")
        assert found == read_samples(self.folder / "whole.samples")


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def said(ranks: list[Child]) -> str:
    return "\n".join(rank.err.read_text()[-2000:] for rank in ranks)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("nodes")
    try:
        with two_nodes() as nodes, Warm(folder) as warm:
            made = Place(folder, nodes, warm)
            ranks = made.start("whole")
            assert [rank.wait() for rank in ranks] == [0, 0], said(ranks)
            assert sorted(read_samples(folder / "whole.samples")) == list(range(STEPS * BATCH))
            yield made
    except UnmadeError as error:
        pytest.skip(f"two network namespaces: {error}")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_node_that_is_killed_and_comes_back(place: Place, victim: int) -> None:
    name = f"killed-{victim}"
    with place.held(name) as ranks:
        ranks[victim].kill()
    survivor = ranks[1 - victim]
    assert survivor.wait() == LOST, said(ranks)
    assert "another rank or its machine is gone" in survivor.err.read_text()
    place.ends_as_the_whole(name, place.start(name))


def test_a_link_that_is_cut_ends_both_in_time_and_they_go_on(place: Place) -> None:
    """Nothing is told to either side: without probes of its own each would wait for hours."""
    try:
        with place.held("cut") as ranks:
            place.nodes.link("down")
        assert [rank.wait() for rank in ranks] == [LOST, LOST], said(ranks)
    finally:
        place.nodes.link("up")
    place.ends_as_the_whole("cut", place.start("cut"))


def test_the_world_shrinks_to_one_node_and_grows_again(place: Place) -> None:
    """The same batches at every size; the weights up to float32's rounding."""
    with place.held("shrunk") as ranks:
        ranks[1].kill()
    assert ranks[0].wait() == LOST
    with place.held("shrunk", 1) as [alone]:
        alone.kill()
    assert alone.wait() == -signal.SIGKILL
    place.ends_as_the_whole("shrunk", place.start("shrunk"), within=1e-5)
