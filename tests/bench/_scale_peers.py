"""What other libraries open for ``scale``, each as its documentation has it."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["OPEN", "loaded"]


def _pixels(picture: Any) -> Any:
    return np.array(picture.convert("RGB").resize((32, 32)))


def loaded(samples: Any, batch: int) -> Iterator[Any]:
    from torch.utils.data import DataLoader, IterableDataset

    streamed = isinstance(samples, IterableDataset)
    loader: Any = DataLoader(
        samples,
        batch_size=batch,
        shuffle=None if streamed else True,
        num_workers=1,
        multiprocessing_context="fork",  # what is patched to be imported here is there
    )
    yield from loader


def _torchvision(folder: Path) -> Callable[[], Any]:
    from torchvision.datasets import ImageFolder

    return lambda: ImageFolder(str(folder), transform=_pixels)


def _words(texts: Any) -> list[int]:
    return [0]


def _open_clip(folder: Path) -> Callable[[], Any]:
    from open_clip_train.data import CsvDataset

    table = str(folder / "metadata.csv")
    os.chdir(folder)  # its paths are of the working folder
    return lambda: CsvDataset(table, _pixels, "file_name", "text", sep=",", tokenizer=_words)


def _webdataset(folder: Path) -> Callable[[], Any]:
    import webdataset

    def opened() -> Any:
        names = sorted(map(str, folder.glob("*.tar")))
        return (
            webdataset.WebDataset(names, shardshuffle=len(names), empty_check=False)
            .shuffle(1000)
            .decode("pil")
            .to_tuple("jpg", "cls")
            .map_tuple(_pixels, str)
        )

    return opened


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    pictures = [Image.open(io.BytesIO(cell["bytes"])) for cell in row["image"]]
    return {"image": [_pixels(picture) for picture in pictures], "label": row["label"]}


def _datasets(folder: Path) -> Callable[[], Any]:
    import datasets

    datasets.disable_progress_bars()
    files = sorted(map(str, folder.glob("*.parquet")))
    return lambda: datasets.Dataset.from_parquet(files).with_transform(_decoded)


OPEN: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "folder": _torchvision,
    "csv": _open_clip,
    "shards": _webdataset,
    "table": _datasets,
}
