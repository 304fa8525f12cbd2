"""``python -m tests.fuzz NAME|all [--minutes N]``: readings of new inputs until the time is over.

Prints how many there were and what was found; exits 1 if anything was. Inputs of findings are kept
in the folder that ``--keep`` names.
"""

import argparse
import faulthandler
import json
import sys
import tempfile
import time
from pathlib import Path

from hypothesis.errors import FlakyFailure

from tests.fuzz.harness import SECONDS, Finding, Target, Watch, fuzz, where
from tests.fuzz.targets import TARGETS

_AT_ONCE = 200  # examples of one seed


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", choices=[*sorted(TARGETS), "all"])
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    given = parser.parse_args(arguments)
    names = sorted(TARGETS) if given.name == "all" else [given.name]
    found = False
    for name in names:
        report = _run(name, TARGETS[name], given.minutes * 60, given.keep)
        print(json.dumps(report), flush=True)
        found |= bool(report["findings"])
    return 1 if found else 0


def _run(name: str, target: Target, seconds: float, keep: Path | None) -> dict[str, object]:
    found: dict[str, str] = {}
    end = time.monotonic() + seconds
    number = time.time_ns() % 2**32
    with tempfile.TemporaryDirectory() as place:
        watch = Watch(Path(place))
        while time.monotonic() < end:
            faulthandler.dump_traceback_later(600 + SECONDS, exit=True)  # code that no alarm stops
            try:
                fuzz(watch, target, _AT_ONCE, number)
            except FlakyFailure as error:  # it did not show a second time, which is told as well
                found.setdefault("flaky", str(error)[:300])
            except Finding as error:
                key = where(error) if error.__cause__ is not None else str(error)[:20]
                if key not in found:
                    found[key] = str(error)
                    notes = "\n".join(getattr(error, "__notes__", []))
                    print(f"{name}: {error}\n  at {key}\n  {notes[:2000]}", flush=True)
                    _keep(keep, name, len(found), watch)
            number += 1
        faulthandler.cancel_dump_traceback_later()
        return {
            "target": name,
            "executions": watch.executions,
            "peak_mib": watch.peak >> 20,
            "findings": sorted(found.values()),
        }


def _keep(keep: Path | None, name: str, number: int, watch: Watch) -> None:
    if keep is None or watch.last is None:
        return
    for inside, data in watch.last.items():
        path = keep / f"{name}-{number}" / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
