"""What the tests of push and pull share: a model folder in miniature, and ways to look at a Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ptft.artifact import ModelInfo, hash_files, write_model_info
from tests.support.loopback_hub import LoopbackHub

REPO_ID = "tester/model"
TOKEN, READ_TOKEN = "hf_test", "hf_read"
WEIGHTS, ONNX = "open_clip_model.safetensors", "onnx/text_model.onnx"
CARD = (
    "---\nlibrary_name: open_clip\nlicense: apache-2.0\ntags:\n- ptft\n---\n# m\n\n"
    "<!-- keep notes -->\nOf the folder.\n<!-- /keep notes -->\n\n## Measured\n"
)
COMMAND = [sys.executable, "-c", "from ptft.cli.main import main; main()"]


def make_folder(path: Path, version: int = 1, **files: bytes | str) -> Path:
    """A model folder with bytes of no model: two large files and a few small ones."""
    contents: dict[str, bytes | str] = {
        WEIGHTS: bytes([version, *range(255)]) * 2000,
        ONNX: bytes([*range(255), version]) * 500,
        "open_clip_config.json": f'{{"version": {version}}}',
        "recipe.yaml": f"seed: {version}\n",
        "README.md": CARD,
        **files,
    }
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    record(path)
    return path


def record(path: Path, **values: Any) -> None:
    """Write ptft.json over what lies in a folder, or with other values."""
    common: dict[str, Any] = {"name": "m", "task": "embed", "embed_dim": 8, "context_length": 16}
    common |= {"image_size": (32, 32), "logit_scale": 100.0, "logit_bias": 0.0, "tokenizer": {}}
    common |= {"recipe_digest": "sha256:r", "weights_digest": "sha256:w"}
    write_model_info(path, ModelInfo(**{**common, "files": hash_files(path), **values}))


def folder_bytes(path: Path) -> dict[str, bytes]:
    """name -> bytes of all files but the card and hidden ones."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name[0] != ".")
    found = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    return {name: found[name] for name in sorted(found) if name != "README.md"}


def hub_bytes(hub: LoopbackHub, rev: str = "main") -> dict[str, bytes]:
    """name -> bytes of all files on the Hub but the card and .gitattributes."""
    names = sorted(hub.repos[REPO_ID].head(rev).files)
    names = [name for name in names if name not in ("README.md", ".gitattributes")]
    return {name: hub.content(REPO_ID, name, rev) for name in names}


def environment(hub: LoopbackHub, home: Path, **more: str) -> dict[str, str]:
    """Of a process that knows this Hub and has a home of its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return plain | hub.env() | {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | more


def run(hub: LoopbackHub, home: Path, *words: object, **more: str) -> subprocess.CompletedProcess:
    """The ptft command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        env=environment(hub, home, **more),
        capture_output=True,
        text=True,
        check=False,
    )
