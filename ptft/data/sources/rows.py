"""Where the rows of a table come from, and what a table needs of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.labels import TextIs

__all__ = ["Rows"]


class Rows(Protocol):
    """Rows by number; reading one never depends on which were read before.

    Attributes:
        columns: names of all columns.
        window, blocks: how rows are best shuffled, see ``SampleSet``.
        text_is: whether the source tells numbers from texts that write numbers.
    """

    @property
    def text_is(self) -> TextIs: ...

    @property
    def columns(self) -> list[str]: ...
    @property
    def window(self) -> int | None: ...
    @property
    def blocks(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def use(self, picture: str | None, fields: Sequence[str]) -> None:
        """Choose, once, the columns that will be read; None: no picture. Raises DataError where
        ``picture`` cannot be one."""

    def name(self, index: int) -> str:
        """Name a row for people: where it comes from and its number there."""

    def fields(self, index: int) -> Mapping[str, Any]:
        """Read a row's columns in use but its picture. Raises SampleError."""

    def picture(self, index: int) -> Any:
        """Read a row's picture cell: bytes, or ``{"bytes", "path"}``. Raises SampleError."""

    def column(self, name: str) -> Sequence[Any] | LabelCodes | None:
        """Read one column of all rows; None where that would read everything."""

    def sources(self) -> Sequence[object] | None:
        """What tells one state of the rows from another; None: nothing does."""

    def class_names(self, name: str) -> list[str] | None:
        """The names that the table itself gives to the numbers of a column."""

    def stored_files(self) -> list[Path]:
        """The files here that the rows are read from; none where they lie otherwise."""

    def same_pictures(self, auto: bool) -> np.ndarray | str | None:
        """Of each row the number of the first row with the same picture, int64 (R,).

        Args:
            auto: only where that takes seconds; else a text says why it was not looked for.
        """
