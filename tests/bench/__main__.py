"""``python -m tests.bench`` lists the benchmarks, ``python -m tests.bench NAME`` runs one.

A benchmark is a module here: ``run()`` prints a table and returns figures by name; ``BARS`` names
what they must hold, and what was not measured does not. The last line printed is one JSON object,
the exit code 0 if every bar holds.
"""

import importlib
import json
import operator
import sys
from pathlib import Path

_OPERATORS = {"<=": operator.le, ">=": operator.ge}


def main(arguments: list[str]) -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    if len(arguments) != 1 or arguments[0] not in names:
        for name in names:
            doc = importlib.import_module(f"tests.bench.{name}").__doc__ or ""
            print(f"{name:<12} {doc.strip().splitlines()[0]}")
        return 0 if not arguments else 2
    module = importlib.import_module(f"tests.bench.{arguments[0]}")
    figures = module.run()
    bars = {
        name: {
            "bar": f"{sign} {bound}",
            "ok": name in figures and _OPERATORS[sign](figures[name], bound),
        }
        for name, (sign, bound) in module.BARS.items()
    }
    ok = all(bar["ok"] for bar in bars.values())
    print(json.dumps({"bench": arguments[0], "figures": figures, "bars": bars, "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
