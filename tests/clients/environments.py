"""The environments of the clients that ptft's own does not hold, made once in a cache folder.

A Python environment here is a virtual one that holds only what its requirements file pins; all
else (torch among it) it finds in the environment of the running interpreter, behind its own. ptft
itself is not among that where it is installed from a checkout, and no client imports it.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import platformdirs

__all__ = [
    "CYCLONEDX",
    "LAUNCHERS",
    "MODEL_SIGNING",
    "NODE",
    "OPENVINO",
    "cache_folder",
    "find",
    "make",
]

HERE = Path(__file__).resolve().parent
NODE = "transformers_js"
OPENVINO = "openvino"  # another build of onnxruntime, for the service
LAUNCHERS = "launchers"  # no clients of the model folder, but made in the same way
CYCLONEDX = "cyclonedx"  # the schemas of bills of materials
MODEL_SIGNING = "model_signing"  # verifies what ptft signs, and the other way round
_NODE_FILES = ("package.json", "package-lock.json")
_STAMP = "made-of.txt"


def cache_folder() -> Path:
    """Where the environments lie unless told otherwise."""
    return platformdirs.user_cache_path("ptft") / "clients"


def find(name: str, cache: Path) -> Path | None:
    """The environment's folder, or None where it is not there or of other pins."""
    folder = cache / name
    stamp = folder / _STAMP
    return folder if stamp.is_file() and stamp.read_text() == _digest(name) else None


def make(name: str, cache: Path) -> Path:
    """The environment's folder, made where it is not there; its name is that of its pins' file.

    Raises:
        subprocess.CalledProcessError: pip or npm failed, and has said why.
        FileNotFoundError: npm is not installed.
    """
    found = find(name, cache)
    if found is not None:
        return found
    folder = cache / name
    shutil.rmtree(folder, ignore_errors=True)
    if name == NODE:
        _make_node(folder)
    else:
        _make_python(folder, HERE / f"{name}.txt")
    (folder / _STAMP).write_text(_digest(name))
    return folder


def _make_python(folder: Path, requirements: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *quiet, "-r", requirements], check=True, stdout=sys.stderr)


def _make_node(folder: Path) -> None:
    """Without the packages' own scripts: one would fetch a CUDA build of onnxruntime."""
    folder.mkdir(parents=True)
    for name in _NODE_FILES:
        shutil.copy(HERE / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)


def _digest(name: str) -> str:
    """Of all that decides what is in the environment."""
    names = _NODE_FILES if name == NODE else (f"{name}.txt",)
    parts = [sys.version, sysconfig.get_path("purelib"), *((HERE / n).read_text() for n in names)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
