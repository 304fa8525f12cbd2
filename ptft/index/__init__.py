"""An index of pictures: their embeddings by one model, searched exactly."""

from ptft.index.files import (
    Index,
    IndexInfo,
    Nearest,
    read_picture_index,
    read_picture_index_info,
    write_picture_index,
)

__all__ = [
    "Index",
    "IndexInfo",
    "Nearest",
    "read_picture_index",
    "read_picture_index_info",
    "write_picture_index",
]
