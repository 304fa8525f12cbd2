"""Who answers about a probe set: a model folder run here, or a service over HTTP.

Both take a picture's classes alike: the model's own head where it knows every label of the set,
else zero-shot by the labels in the model's own templates.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptft.artifact import read_model_info, verify_files
from ptft.client import ServiceClient
from ptft.errors import ArtifactError, DataError
from ptft.gate.checks import Check
from ptft.onnx.golden import check_golden, read_golden
from ptft.onnx.model import OnnxModel
from ptft.onnx.provider import Provider
from ptft.onnx.trial import try_model
from ptft.preprocess import decode_image
from ptft.preprocess.picture_header import read_header

__all__ = ["Answering", "FolderAnswers", "ServiceAnswers"]

_BATCH = 16


class Answering(Protocol):
    """A release, asked."""

    digest: str

    def golden(self) -> Check:
        """Whether it gives its golden embeddings."""

    def images(self, names: Sequence[str], pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """Pictures to (N, D), each of length 1."""

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to (M, D), each of length 1."""

    def classes(
        self, names: Sequence[str], pictures: Sequence[bytes], labels: Sequence[str]
    ) -> list[str]:
        """The most probable class of each picture."""


class FolderAnswers:
    """A model folder on onnxruntime, its bytes held against its record first.

    Args:
        folder: a model folder; files that a service does not read may be absent.
        precision: fp32, fp16 or int8.
        threads: of each tower.

    Raises:
        ArtifactError, DigestError: it is none, or its bytes are others.
    """

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        self.folder = folder
        info = self.info = read_model_info(folder)
        self.digest = info.digest
        here = {name: entry for name, entry in info.files.items() if (folder / name).is_file()}
        held = verify_files(folder, here)
        try_model(folder, info, precision)
        # on the CPU, so that the check needs no GPU that the running release holds
        self._model = OnnxModel(folder, info, precision, threads, Provider("cpu"))
        held.check_unchanged()
        self._batch = 1 if precision == "int8" else _BATCH

    def golden(self) -> Check:
        """Run the golden inputs."""
        try:
            check_golden(self._model, self.folder)
        except ArtifactError as error:
            return Check("golden", False, str(error))
        golden = read_golden(self.folder)
        count = f"{len(golden.pixels)} pictures and {len(golden.texts)} texts"
        return Check("golden", True, f"{count} as the checkpoint gave them")

    def images(self, names: Sequence[str], pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """Decode as the service does, and embed."""
        rows = []
        for start in range(0, len(pictures), self._batch):
            part = slice(start, start + self._batch)
            pairs = zip(names[part], pictures[part], strict=True)
            pixels = np.stack([self._pixels(name, data) for name, data in pairs])
            rows.append(self._model.encode_images(list(self._model.preprocess.normalise(pixels))))
        return np.concatenate(rows)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Tokenise and embed."""
        rows = []
        for start in range(0, len(texts), self._batch):
            tokens = self._model.tokenizer(texts[start : start + self._batch])
            rows.append(self._model.encode_texts(list(tokens)))
        return np.concatenate(rows)

    def classes(
        self, names: Sequence[str], pictures: Sequence[bytes], labels: Sequence[str]
    ) -> list[str]:
        """By the head, or zero-shot."""
        images_nd = self.images(names, pictures)
        if self._model.has_head and _knows(self.info.reads, self.info.classes, labels):
            scores_nc = self._model.head_probabilities(images_nd)
            return [self.info.classes[at] for at in scores_nc.argmax(axis=1)]
        at_n = self._model_zero_shot(images_nd, labels)
        return [labels[at] for at in at_n]

    def _model_zero_shot(
        self, images_nd: NDArray[np.float32], labels: Sequence[str]
    ) -> NDArray[np.int64]:
        templates = self.info.templates or ["{}"]
        prompts = [one.replace("{}", label) for label in labels for one in templates]
        rows = self.texts(prompts).reshape(len(labels), len(templates), -1).mean(axis=1)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        found: NDArray[np.int64] = (images_nd @ rows.T).argmax(axis=1)
        return found

    def _pixels(self, name: str, data: bytes) -> NDArray[np.uint8]:
        preprocess, header = self._model.preprocess, read_header(data)
        jpeg = header is not None and header.format == "jpeg"
        least = preprocess.least_size(header.size) if header is not None and jpeg else None
        image = decode_image(data, name=name, reading=preprocess.reading, least=least)
        return preprocess.pixels(image)


class ServiceAnswers:
    """A running service, asked for one model alone: that which answers first.

    Args:
        url: its address.
        api_key: of the service, where it asks for one.

    Raises:
        ServiceError: it gives no answer.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._key = api_key
        with ServiceClient(self.url, api_key=api_key) as first:
            self.about = first.model()
        self.digest = self.about.digest
        self.client = ServiceClient(self.url, api_key=api_key, digest=self.digest)

    def golden(self) -> Check:
        """What the service says of its own golden inputs, run where it runs."""
        found = self.client.golden()
        detail = f"{found['pictures']} pictures and {found['texts']} texts, run by the service"
        for one in found["checks"]:
            if not one["holds"]:
                worst, allowed = one["worst"], one["allowed"]
                detail = f"{one['what']} differs by {worst:.2e}; allowed: {allowed:g}"
        return Check("golden", bool(found["holds"]), detail)

    def images(self, names: Sequence[str], pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """``/v1/embed/image``."""
        found = self.client.embed_pictures(list(pictures))
        for place, why in found.failed.items():
            raise DataError(f"{names[place]}: {self.url}: {why}")
        return found.rows

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``/v1/embed/text``."""
        return self.client.embed_texts(list(texts)).rows

    def classes(
        self, names: Sequence[str], pictures: Sequence[bytes], labels: Sequence[str]
    ) -> list[str]:
        """``/v1/classify``."""
        own = _knows(self.about.reads, self.about.classes, labels)
        found = self.client.classify(list(pictures), labels=None if own else labels, top_k=1)
        for name, one in zip(names, found, strict=True):
            if one.failed:
                raise DataError(f"{name}: {self.url}: {one.failed}")
        return [one.classes[0][0] for one in found]

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def _knows(reads: str, classes: Sequence[str], labels: Sequence[str]) -> bool:
    return reads == "image" and bool(classes) and set(labels) <= set(classes)
