"""The shared place of a comparison: its folder, or the mirror that the folder is a copy of."""

import logging
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ptft.artifact import RunFiles, read_json, write_atomic
from ptft.compare.queries import QUERIES
from ptft.errors import ArtifactError, MirrorError
from ptft.files.atomic import create_atomic
from ptft.recipe import RunSection
from ptft.runs.mirror.store import MirrorStore
from ptft.speech import say

__all__ = ["STARTS", "Board", "clear_bare"]

_MOST = 1 << 30  # bytes of a file that is brought here
STARTS = ("start_hits_val.json", "start_asked_val.json", "start_hits_test.json")
"""What the start answered on the retained sets."""
_RECORDS = (RunFiles.DATA, "accepted.json", *STARTS, QUERIES)
_REPORT = ("results.json", "report.md", "report.html", "recommended.yaml", "recommended_first.yaml")
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds after a failure
T = TypeVar("T")


def clear_bare(folder: Path) -> None:
    """Forget a comparison that ended before anything was done for it, such as one whose data could
    not be read: it keeps nobody from the folder."""
    recipe, names = folder / RunFiles.RECIPE, {path.name for path in folder.iterdir()}
    bare = names <= {RunFiles.RECIPE, RunFiles.DATA} and recipe.is_file()
    if bare and b"\ncompare:" in recipe.read_bytes():  # no run's
        (folder / RunFiles.DATA).unlink(missing_ok=True)
        recipe.unlink(missing_ok=True)


class Board:
    """Args:
        folder: of the comparison, on this machine.
        section: ``run`` of its recipe; with a ``mirror`` that is the shared place.
        log: of what it says.

    Attributes:
        store: the shared place.
        poll: seconds between looks at what others do.

    Raises:
        MirrorError: (from every method, too) the mirror does not answer, for as long as
            ``run.mirror_max_age_minutes``; or it lies within the folder.
    """

    def __init__(self, folder: Path, section: RunSection, log: logging.Logger) -> None:
        self.folder = folder
        self.store = MirrorStore(str(folder) if section.mirror is None else section.mirror)
        self.mirrored = section.mirror is not None
        self.poll = 5.0 if self.store.folder is None else 0.5
        self._patience = 60 * section.mirror_max_age_minutes
        self._log = log
        self._given: set[str] = set()
        if self.mirrored:
            self.store.check_apart(folder)

    def patiently(self, ask: Callable[[], T]) -> T:
        """What the store answers, asked again, ever more rarely, where it does not."""
        until, wait = time.monotonic() + self._patience, _FIRST_WAIT
        while True:
            try:
                return ask()
            except MirrorError as error:
                if not self.mirrored or time.monotonic() + wait > until:
                    raise
                say(self._log, f"run.mirror: {error}; again in {wait:.0f} s")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT) * random.uniform(0.8, 1.0)  # noqa: S311

    def first(self, name: str, data: bytes) -> bool:
        """Put a file into the shared place, unless one is there already, which is then brought
        here; whether it was put there."""
        if not self.mirrored:
            return create_atomic(self.folder / name, data)
        put = self.patiently(lambda: self.store.create(name, data))
        if put:
            write_atomic(self.folder / name, data)
        else:
            self._bring([name], anew=True)
        return put

    def put(self, name: str) -> None:
        """Put a file of the folder into the shared place, whatever is there."""
        if self.mirrored:
            data = (self.folder / name).read_bytes()
            self.patiently(lambda: self.store.write(name, [data]))

    def forget(self, names: Iterable[str]) -> None:
        """Delete files of the shared place."""
        if self.mirrored:
            wanted = list(names)
            self.patiently(lambda: self.store.delete(wanted))

    def bring_records(self) -> None:
        """Bring what is recorded of the data and of the starting model here."""
        if self.mirrored:
            self._bring(_RECORDS, anew=True)

    def bring_cells(self) -> set[str]:
        """Bring the finished cells here; the names of all of them."""
        names = self.patiently(lambda: self.store.names("cells"))
        found = {name for name in names if name.endswith(".json") and "/." not in name}
        if self.mirrored:
            self._bring(found)
        return {name.removeprefix("cells/").removesuffix(".json") for name in found}

    def give_cells(self, names: Iterable[str]) -> None:
        """Put cells that were finished here into the shared place; one that is there stays."""
        if not self.mirrored:
            return
        for name in [f"cells/{one}.json" for one in names]:
            path = self.folder / name
            if name not in self._given and path.is_file():
                data = path.read_bytes()
                if not self.patiently(lambda: self.store.create(name, data)):  # noqa: B023
                    self._bring([name], anew=True)
                self._given.add(name)
        for name in (*STARTS, QUERIES):
            path = self.folder / name
            if name not in self._given and path.is_file():
                self.first(name, path.read_bytes())
                self._given.add(name)

    def give_report(self) -> None:
        """Put the report into the shared place."""
        for name in _REPORT:
            if (self.folder / name).is_file():
                self.put(name)

    def _bring(self, names: Iterable[str], *, anew: bool = False) -> None:
        for name in names:
            path = self.folder / name
            if path.is_file() and not anew:
                continue
            data = self.patiently(lambda: self.store.read(name, most=_MOST))  # noqa: B023
            if data is None:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
            if path.suffix == ".json":
                try:
                    read_json(path)
                except ArtifactError:
                    path.unlink()
                    raise
