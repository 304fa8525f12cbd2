"""Lets clients of the service embed what a job names: ``python http_run.py JOB.json``, in an
environment of theirs.

A job is ``{"url", "model", "alias", "dim", "cut", "texts", "pictures", "out", "clients"}``: the
service's address, the model's name and another under which it goes, its dimensions and fewer that
it may be asked for, texts, paths of pictures (PNG), a folder, and names of clients. What a client
makes of texts and pictures is written as ``NAME.text.npy`` and ``NAME.image.npy``; one that fails,
or is not answered as it should be, leaves ``NAME.error``.

Nothing here imports ptft.
"""

import importlib
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HTTP_CLIENTS = (
    *("openai", "openai_async", "langchain", "llama_index", "infinity", "infinity_generated"),
    *("vllm", "jina", "cohere", "immich", "generated"),
)


@dataclass(frozen=True)
class Job:
    """What clients are to do."""

    url: str
    model: str
    alias: str
    dim: int
    cut: int
    texts: list[str]
    pictures: list[str]
    out: str
    clients: list[str]

    def data(self) -> list[bytes]:
        """Of the pictures' files."""
        return [Path(path).read_bytes() for path in self.pictures]

    def uris(self) -> list[str]:
        """The pictures as data URIs."""
        return [f"data:image/png;base64,{text}" for text in self.coded()]

    def coded(self) -> list[str]:
        """The pictures as base64."""
        import base64

        return [base64.b64encode(data).decode() for data in self.data()]


def main(path: Path) -> None:
    job = Job(**json.loads(path.read_text(encoding="utf-8")))
    for name in job.clients:
        try:
            assert name in HTTP_CLIENTS
            module = "http_openai" if name.split("_")[0] in _OPENAI else "http_others"
            drive: Callable[[Job], dict[str, Any]]
            drive = getattr(importlib.import_module(module), name)
            for which, rows in drive(job).items():
                np.save(Path(job.out) / f"{name}.{which}.npy", np.asarray(rows, np.float32))
        except Exception:
            (Path(job.out) / f"{name}.error").write_text(traceback.format_exc())


_OPENAI = ("openai", "langchain", "llama")

if __name__ == "__main__":
    main(Path(sys.argv[1]))
