"""An index of pictures: their embeddings by one model, searched exactly."""

from ptft.index.files import Index, IndexInfo, Nearest, read_index, read_index_info, write_index

__all__ = ["Index", "IndexInfo", "Nearest", "read_index", "read_index_info", "write_index"]
