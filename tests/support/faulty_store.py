"""A store in memory, of a protocol of its own, that fails as a test says."""

import threading
from collections.abc import Callable
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

__all__ = ["FaultyStore"]


class FaultyStore(MemoryFileSystem):
    """Attributes:
    fails: given the operation and the path, whether that fails.
    calls: operations so far, with their paths.
    """

    protocol = "faulty"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    fails: Callable[[str, str], bool] = staticmethod(lambda operation, path: False)
    calls: list[tuple[str, str]] = []
    slow = threading.Event()

    @classmethod
    def begin(cls) -> None:
        """An empty store that works."""
        fsspec.register_implementation("faulty", cls, clobber=True)
        cls.store.clear()
        cls.calls.clear()
        cls.pseudo_dirs[:] = [""]
        cls.fails = staticmethod(lambda operation, path: False)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://", 1))

    def _ask(self, operation: str, path: str) -> None:
        self.calls.append((operation, path))
        if type(self).fails(operation, path):
            raise OSError(f"503 Slow Down ({operation}); https://key:secret@store/?sig=abcdef")

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self._ask("ls", path)
        return super().ls(path, detail=detail)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> Any:
        self._ask("read", path)
        return super().cat_file(path, start=start, end=end)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> Any:
        self._ask("write", path)
        return super().pipe_file(path, value, mode=mode)

    def rm_file(self, path: str) -> None:
        self._ask("delete", path)
        super().rm_file(path)
