"""A folder in which the pages' commands are run, one after another, as a reader would.

Two things are not the reader's: a recipe's model is a tiny one with few samples, since weights
cannot be fetched here, and the Hub is one on loopback.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from ptft.launch import load_launch
from ptft.model import save_model
from ptft.recipe import ArchModel, Comparison, InitSection, dump_recipe, load_evaluation
from ptft.recipe.load import load_any
from ptft.recipe.optim import LBFGS
from tests.docs.pages import REPO, is_plain
from tests.serving.server import free_port
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny import build, towers_section
from tests.support.warm import Warm

__all__ = ["TOKEN", "Walk", "draw", "environment"]

TOKEN = "hf_readme"
_BATCHES = 2  # of each training
_SECONDS = 300  # in which the service is ready, however busy the machine is


def environment(home: Path) -> dict[str, str]:
    """Of a reader who has activated the environment and has no settings."""
    programs = str(Path(sys.executable).parent)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PTFT_", "HF_"))}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "HF_HOME": str(home / "hf"),
    }


def draw(folder: Path) -> None:
    """The pictures that the pages take for the reader's own."""
    noise = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, shade in (("running shoes", 60), ("sandals", 180)):
            for number in range(4):
                pixels = noise.integers(0, 70, (40, 48, 3), np.uint8) + np.uint8(shade)
                _save(Image.fromarray(pixels), folder / "pictures" / split / name / f"{number}.jpg")
        for name, low in (("no finding", 0), ("pneumonia", 30_000)):
            for number in range(4):
                pixels = noise.integers(low, low + 30_000, (48, 40)).astype(np.uint16)
                _save(Image.fromarray(pixels), folder / "scans" / split / name / f"{number}.png")
        lines = []
        for number in range(6):
            pixels = noise.integers(0, 256, (40, 48, 3), np.uint8)
            _save(Image.fromarray(pixels), folder / "photos" / split / f"{number}.jpg")
            captions = [f"a photo of {split} {number}", f"the {number}th of {split}"]
            lines.append(json.dumps({"file_name": f"{number}.jpg", "captions": captions}))
        (folder / "photos" / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    rows = ["image,caption"]
    for number in range(20):
        pixels = noise.integers(0, 256, (40, 48, 3), np.uint8)
        _save(Image.fromarray(pixels), folder / "flickr" / "Images" / f"{number}.jpg")
        rows += [f"{number}.jpg,caption {way} of {number}" for way in ("one", "two")]
    (folder / "flickr" / "captions.txt").write_text("\n".join(rows) + "\n")
    shutil.copy(folder / "photos" / "test" / "0.jpg", folder / "picture.jpg")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@dataclass
class Walk:
    """Runs commands in one folder, each once.

    Attributes:
        folder: where the reader is.
        files: the pages' own files by name, as they are written before a command needs them.
        outputs: what each command that ran has printed.
    """

    folder: Path
    hub: LoopbackHub
    warm: Warm
    environment: dict[str, str]
    files: dict[str, str]
    outputs: dict[str, str] = field(default_factory=dict)
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where what the pages serve at 3000 is here."""
        return self._here("3000")

    def _here(self, port: str) -> int:
        if port not in self.ports:
            self.ports[port] = free_port()
        return self.ports[port]

    def run(self, line: str) -> str:
        """What a command prints; one that was run before is not run again."""
        if line not in self.outputs:
            self.outputs[line] = self._run(line)
        return self.outputs[line]

    def _run(self, line: str) -> str:
        words = shlex.split(line)
        for name in [word for word in words if word in self.files]:
            if words[:2] != ["ptft", "cp"] and not (self.folder / name).exists():
                self.write(name)
        if "bentoml" in words:
            return self._serve(line)
        if words[0] == "curl":
            port = _port(line)
            self._wait_for_service(port)
            asked = line.replace("curl ", "curl -fsS ")
            return self._shell(asked.replace(port, str(self._here(port))))
        if not is_plain(line):
            return self._shell(line)
        child = self.warm.ptft(
            *(word.replace("your-name/", "tester/") for word in words[1:]), cwd=self.folder
        )
        code = child.wait()
        assert code == 0, f"{line}\n{child.out.read_text()}\n{child.err.read_text()}"
        if words[:2] == ["ptft", "cp"]:
            self._copied(words[3])
        return child.out.read_text()

    def _copied(self, name: str) -> None:
        """The reader edits a copy: into what the page shows of it, else as far as it must be."""
        if name in self.files:
            self.write(name)
        else:
            shrink(self.folder / name)

    def write(self, name: str) -> None:
        """Write a file of the pages, with a small model."""
        (self.folder / name).write_text(self.files[name])
        shrink(self.folder / name)

    def _wait_for_service(self, port: str) -> None:
        address = f"http://localhost:{self._here(port)}/readyz"
        assert port in self.services, "nothing was served before it was asked"
        log = self.folder / f"service-{port}.log"
        for _ in range(_SECONDS * 10):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(address).is_success:
                    return
            assert self.services[port].poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"not ready: {log.read_text()}")

    def _shell(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _serve(self, line: str) -> str:
        port = _port(line)
        serve = f"{line.replace(port, str(self._here(port)))} --working-dir {REPO}"
        with (self.folder / f"service-{port}.log").open("wb") as log:
            self.services[port] = subprocess.Popen(
                ["bash", "-c", f"exec env {serve}"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        return ""

    def end(self) -> None:
        """Stop the services."""
        for service in self.services.values():
            service.terminate()
        for service in self.services.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.wait(timeout=60)


def _port(line: str) -> str:
    """The one that a command names."""
    return re.findall(r"(?:localhost:|--port )(\d+)", line)[0]


def shrink(path: Path) -> None:
    """A recipe with a tiny model and two batches, in its place; of what only measures nothing, nor
    of a launch file."""
    if path.name == "cloud.yaml":
        load_launch(path)
        return
    if "optim:" not in path.read_text():
        load_evaluation(path, model="none")
        return
    recipe = load_any(path)
    changes: dict[str, Any] = {}
    if isinstance(recipe.model, ArchModel) and recipe.model.pretrained is not None:
        start = path.parent / "weights"  # whose towers know each other, as downloaded ones do
        if not start.is_dir():
            save_model(build(towers_section()), start)
        changes |= {"model": None, "init": InitSection.model_validate({"from": str(start)})}
    elif recipe.model is not None:
        changes["model"] = towers_section()
    batch = min(recipe.optim.global_batch, 8)
    optim: dict[str, Any] = {"samples_seen": _BATCHES * batch, "epochs": None}
    if recipe.optim.optimizer != LBFGS:  # whose batch is the training set
        optim |= {"global_batch": batch, "precision": "fp32"}
    changes["optim"] = recipe.optim.model_copy(update=optim)
    run = {"workers": 0, "trackers": [], "neighbours": False, "device": "cpu"}
    changes["run"] = recipe.run.model_copy(update=run)
    if isinstance(recipe, Comparison):
        changes["compare"] = recipe.compare.model_copy(update={"jobs": 1})
    path.write_text(dump_recipe(recipe.model_copy(update=changes)))
