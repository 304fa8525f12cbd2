"""Guards against other people's files, each taken out in turn: a test has to fail for each.

The guards are in ``unmended.toml``: what each is against, the text that is taken out of which file
and what stands there then, and the test that is to fail. All of it happens in a copy of the
checkout. A text that is no longer there, once, is an error: the guard has moved, and its entry goes
with it. ``python -m tests.bench.unmended 60-82`` takes out some of them, by their number in the
list.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["BARS", "run"]

BARS = {"caught_share": (">=", 1.0)}
_REPO = Path(__file__).resolve().parents[2]
_FOLDERS = ("ptft", "serving", "tests", "recipes", "requirements")  # that the tests read
_PATIENCE = 600.0  # seconds for a test, whatever goes wrong in it
_MEMORY = 24 << 30  # bytes of addresses that one may take


class _Guard(NamedTuple):
    """Attributes:
    harm: of which kind.
    against: what it holds off, in words.
    file: in the checkout, that has ``old`` once; ``new`` takes its place.
    test: node id of a test that fails then.
    """

    harm: str
    against: str
    file: str
    old: str
    new: str
    test: str


def run(*, smoke: bool = False, some: slice = slice(None)) -> dict[str, float]:
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    guards = [_Guard(**entry) for entry in tomllib.loads(text)["guard"]]
    for guard in guards:
        count = (_REPO / guard.file).read_text(encoding="utf-8").count(guard.old)
        if count != 1:
            raise SystemExit(f"{guard.file}: has {count} times, allowed once: {guard.old!r}")
        file, _, name = guard.test.partition("[")[0].partition("::")
        if f"def {name}(" not in (_REPO / file).read_text(encoding="utf-8"):
            raise SystemExit(f"{file}: has no {name}")
    guards = guards[:2] if smoke else guards[some]
    with tempfile.TemporaryDirectory(prefix="unmended-") as place:
        copy = _copied(Path(place))
        tests = list(dict.fromkeys(guard.test for guard in guards))
        if not smoke and (said := _failures(copy, tests)):
            raise SystemExit(f"with all guards in place: {said}")
        caught = sum([_is_caught(copy, guard) for guard in guards])
    return {"guards": len(guards), "caught": caught, "caught_share": caught / len(guards)}


def _copied(place: Path) -> Path:
    copy = place / "checkout"
    for name in _FOLDERS:
        shutil.copytree(_REPO / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in _REPO.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, copy)
    return copy


def _is_caught(copy: Path, guard: _Guard) -> bool:
    """Take a guard out, run its test, and put it back."""
    path = copy / guard.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(guard.old, guard.new), encoding="utf-8")
    try:
        said = _failures(copy, [guard.test])
    finally:
        path.write_text(whole, encoding="utf-8")
    word = "caught" if said else "NOT CAUGHT"
    print(f"{word:<10}  {guard.harm}: {guard.against}  ({guard.file})", flush=True)
    print(f"            {guard.test.rpartition('/')[2]}: {said[:90]}", flush=True)
    return bool(said)


def _failures(copy: Path, tests: Sequence[str]) -> str:
    """Why the first test that fails does; empty where all pass.

    Raises:
        SystemExit: they could not be run at all.
    """
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    environment |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    limited = ["bash", "-c", f'ulimit -v {_MEMORY >> 10}; exec "$@"', "limited"]
    options = ["-q", "-x", "--tb=short", "--no-header", "-rs", "-p", "no:cacheprovider"]
    command = [*limited, sys.executable, "-m", "pytest", *options, *tests]
    most = _PATIENCE * len(tests)
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=most
        )
    except subprocess.TimeoutExpired:  # which it does not where all guards are in place
        return f"it did not end within {most:.0f} s"
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or any(line.startswith("SKIPPED") for line in lines):
        raise SystemExit(f"{' '.join(tests)[:300]}: {' '.join(lines[-5:])} {done.stderr[-300:]}")
    if done.returncode == 0:
        return ""
    return next((line[1:].strip() for line in lines if line.startswith("E  ")), "it failed")


if __name__ == "__main__":
    first, _, last = sys.argv[1].partition("-")
    figures = run(some=slice(int(first) - 1, int(last or first)))
    print(figures)
    sys.exit(figures["caught"] < figures["guards"])
