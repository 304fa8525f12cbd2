"""``python -m tests.bench`` lists the benchmarks, ``python -m tests.bench NAME`` runs one.

A benchmark is a module here: ``run(smoke=False)`` prints a table and returns figures by name;
``BARS`` names what they must hold, and what was not measured does not. The last line printed is one
JSON object, the exit code 0 if every bar holds. With ``--smoke`` everything is as small as it can
be, a matter of seconds: figures are those of that size, and no bar is held against them. Where a
real part is absent (data, a GPU, another library's environment) a line says which, and
``"skipped"`` in the JSON.
"""

import argparse
import ast
import importlib
import json
import operator
import sys
from pathlib import Path
from typing import Any

from tests.bench._parts import Absent

__all__ = ["NAMES", "main"]

_HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in _HERE.glob("[a-z]*.py"))
_OPERATORS = {"<=": operator.le, ">=": operator.ge}


def main(arguments: list[str]) -> int:
    """Run one, or list them; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("name", nargs="?", choices=NAMES, metavar="NAME")
    parser.add_argument("--smoke", action="store_true", help="seconds long, held to no bar")
    parsed = parser.parse_args(arguments)
    if parsed.name is None:
        for name in NAMES:
            doc = ast.get_docstring(ast.parse((_HERE / f"{name}.py").read_text())) or ""
            print(f"{name:<16} {doc.splitlines()[0]}")
        return 0
    module = importlib.import_module(f"tests.bench.{parsed.name}")
    found: dict[str, Any] = {"bench": parsed.name, "figures": {}}
    if parsed.smoke:
        found["smoke"] = True
    try:
        found["figures"] = module.run(smoke=parsed.smoke)
    except Absent as absent:
        print(f"{parsed.name} is skipped: {absent}")
        found |= {"skipped": str(absent), "figures": absent.figures}
    bars = {} if parsed.smoke else module.BARS
    found["bars"] = {
        name: {
            "bar": f"{sign} {bound}",
            "ok": name in found["figures"] and _OPERATORS[sign](found["figures"][name], bound),
        }
        for name, (sign, bound) in bars.items()
    }
    found["ok"] = all(bar["ok"] for bar in found["bars"].values())
    print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
