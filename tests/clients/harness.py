"""Models on the loopback Hub, clients that embed with them, and how far they are from ptft."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ptft.artifact import read_model_info
from ptft.data.sources.scenes import Scenes
from ptft.export import export_model
from ptft.export.parity import TEXTS
from ptft.hub import pull_model, push_model
from ptft.model import load_model, save_model
from ptft.recipe import ScenesData
from tests.clients import environments, models
from tests.support.hub_parts import environment
from tests.support.loopback_hub import LoopbackHub

__all__ = ["CAPTIONS", "CLIENTS", "ENVIRONMENTS", "Bench", "Client", "Figures", "scenes"]

CAPTIONS = (
    *TEXTS,
    "&quot;R&amp;D&quot; it&#39;s 5&nbsp;&euro;",
    "🎉🎉 ¡fiesta! 🇪🇸",
    "an icon: \u2b50",
    # special tokens, of open_clip and of others, as people write them
    "a <|startoftext|> bird <|endoftext|> tree",
    "a horse<end_of_text> on a hill",
    "!<end_of_text><END_OF_TEXT> boat",
    "one <START_OF_TEXT> house &lt;end_of_text&gt;",
    "an apple</s> and a <s>pear</s>",
    "[SEP] a [MASK] train",
)


@dataclass(frozen=True)
class Client:
    """A row of the table.

    Attributes:
        label: of the row.
        module: in this folder, without ``with_``.
        environment: its pins' file; None: ptft's own environment.
        options: for the module.
        library: whose entry in ``ptft.json`` says whether it loads a folder; empty: always.
    """

    label: str
    module: str
    environment: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    library: str = "transformers"


CLIENTS = (
    Client("open_clip hf-hub", "open_clip", None, {"scheme": "hf-hub"}, "open_clip"),
    Client("open_clip local-dir", "open_clip", None, {"scheme": "local-dir"}, "open_clip"),
    Client("transformers 5", "transformers"),
    Client("transformers 5 torchvision", "transformers", options={"backend": "torchvision"}),
    Client("timm", "timm", library="timm"),
    Client("onnxruntime", "onnxruntime", library=""),
    Client("transformers 4.57", "transformers", "transformers4"),
    Client("optimum-onnx", "optimum", "transformers4"),
    Client(
        "sentence-transformers",
        "sentence_transformers",
        "sentence_transformers",
        library="sentence-transformers",
    ),
    Client("transformers.js", "transformers_js", environments.NODE),
)

ENVIRONMENTS = tuple(dict.fromkeys(one.environment for one in CLIENTS if one.environment))


@dataclass(frozen=True)
class Figures:
    """What a client made of a model, against ptft.

    Attributes:
        same: largest difference of an entry of a normalised embedding, on the same tensors.
        image, text: smallest cosine, from pictures and captions; None where it has none.
        error: why there is nothing.
    """

    same: float | None = None
    image: float | None = None
    text: float | None = None
    error: str | None = None


def scenes(count: int = 3, size: int = 224) -> list[Image.Image]:
    """Drawn scenes, cut to no square so that a crop tells."""
    drawn = Scenes(ScenesData(style="shaded", size=size, test=count), "test")
    return [drawn[index].image.crop((0, 0, size, size - 40)) for index in range(count)]


class Bench:
    """A Hub's models and the inputs of every client, in a working folder.

    Args:
        hub: with the models, after this.
        names: of the models.
        pictures: RGB, of any size.
    """

    def __init__(
        self, hub: LoopbackHub, work: Path, names: Iterable[str], pictures: Sequence[Image.Image]
    ) -> None:
        self.hub, self.work, self.out = hub, work, work / "out"
        self.names = tuple(names)
        self.inputs = work / "inputs"
        for folder in (self.out, self.inputs / "pictures"):
            folder.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            picture.save(self.inputs / "pictures" / f"{number:02}.png")
        (self.inputs / "captions.json").write_text(json.dumps(CAPTIONS), encoding="utf-8")
        self.expected: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._pad_ids: dict[str, int] = {}
        self.prepares = False  # whether the folders hold what makes pixels in every language
        self._beside: dict[str, bool] = {}
        self._clients: dict[str, dict[str, dict[str, str]]] = {}
        for name in self.names:
            self._publish(name, pictures)

    def _publish(self, name: str, pictures: Sequence[Image.Image]) -> None:
        """Export, push and pull a model, and embed with what came back."""
        work = self.work / name
        save_model(models.build(name, work), work / "checkpoint")
        export_model(work / "checkpoint", work / "model", name=name, licence="apache-2.0")
        push_model(work / "model", f"tester/{name}", endpoint=self.hub.url, token=self.hub.token)
        pull_model(
            f"tester/{name}", self._pulled(name), endpoint=self.hub.url, cache_dir=work / "cache"
        )
        model = load_model(self._pulled(name)).eval()
        info = read_model_info(self._pulled(name))
        pixels = np.stack([model.spec.preprocess(picture) for picture in pictures])
        tokens = model.spec.tokenizer(CAPTIONS)
        np.save(self.inputs / f"{name}.pixel_values.npy", pixels)
        np.save(self.inputs / f"{name}.input_ids.npy", tokens)
        if model.spec.text_trimmable:
            # by length: CLIP fills with zeros, and zero is a piece of "!<", too
            used = model.spec.tokenizer.lengths(tokens)
            mask = (np.arange(tokens.shape[1]) < used[:, None]).astype(np.int64)
            np.save(self.inputs / f"{name}.attention_mask.npy", mask)
        with torch.no_grad():
            image, text = model(torch.from_numpy(pixels), torch.from_numpy(tokens))
        for rows in (image, text):  # or a client that swaps them would pass
            assert (rows @ rows.T - 2 * torch.eye(len(rows))).max() < 0.99, name
        self.expected[name] = image.numpy(), text.numpy()
        self._pad_ids[name] = info.tokenizer["pad_id"]
        self.prepares = "onnx/preprocess.onnx" in info.files
        self._beside[name] = model.spec.open_clip_needs is not None
        self._clients[name] = info.clients

    def loads(self, client: Client, name: str) -> bool:
        """Whether a folder says of itself that the client loads it."""
        return not client.library or "loads" in self._clients[name][client.library]

    def _pulled(self, name: str) -> Path:
        return self.work / name / "pulled"

    def run(self, clients: Sequence[Client], cache: Path) -> None:
        """Let clients of one environment embed with every model, in one process."""
        (name,) = {client.environment for client in clients}
        folder = None if name is None else environments.find(name, cache)
        assert name is None or folder is not None, f"no environment {name} in {cache}"
        job = self.work / f"{name}.json"
        pairs = [pair for pair in product(clients, self.names) if self.loads(*pair)]
        tasks = [self._task(client, one) for client, one in pairs]
        values = {"inputs": str(self.inputs), "out": str(self.out), "tasks": tasks}
        job.write_text(json.dumps(values))
        here = environments.HERE
        if name == environments.NODE:
            command = ["node", here / "transformers_js.mjs", folder, job]
        else:
            python = sys.executable if folder is None else folder / "bin" / "python"
            command = [python, here / "run.py", job]
        plain = environment(self.hub, self.work / "home", PYTHONPATH="", OMP_NUM_THREADS="1")
        empty = self.work / "empty"
        empty.mkdir(exist_ok=True)
        done = subprocess.run(
            command, env=plain, cwd=empty, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def _task(self, client: Client, name: str) -> dict[str, Any]:
        task = {
            "client": client.module,
            "label": client.label,
            "model": name,
            "repo": f"tester/{name}",
            "folder": str(self._pulled(name)),
            "options": {**client.options, "pad_id": self._pad_ids[name]},
        }
        if client.module == "open_clip" and self._beside[name]:
            task["cwd"] = str(self._pulled(name))  # as the card says
        return task

    def figures(self, client: Client, name: str) -> Figures:
        """How far a client that has run is from ptft."""
        stem = f"{client.label}.{name}"
        if (self.out / f"{stem}.error").is_file():
            return Figures(error=(self.out / f"{stem}.error").read_text())
        found = {
            which: _unit(np.load(path))
            for which in ("same_image", "same_text", "image", "text")
            if (path := self.out / f"{stem}.{which}.npy").is_file()
        }
        right = dict(zip(("image", "text"), self.expected[name], strict=True))
        for which, rows in found.items():
            assert rows.shape == right[which.removeprefix("same_")].shape, (stem, which, rows.shape)
        same = [
            np.abs(found[f"same_{which}"] - right[which]).max()
            for which in right
            if f"same_{which}" in found
        ]
        cosines = {
            which: float((found[which] * right[which]).sum(axis=1).min())
            for which in right
            if which in found
        }
        return Figures(float(max(same)), cosines.get("image"), cosines.get("text"))


def _unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
