"""What `make demo` shows: plain fine-tuning forgets, the guarded way keeps the first domain.

The commands are those of recipes/speedrun.sh as it stands, up to the page of results; serving is
left out. Both ways of fine-tuning draw as many samples, of which replay spends one in four on the
new domain: it may learn a little less there.
"""

import json
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench._parts import cpu_minutes, ptft

__all__ = ["BARS", "run"]

BARS = {
    "kept": (">=", 0.97),
    "line_over_plain_points": (">=", -5.0),
    "cpu_minutes": ("<=", 15.0),
}

_SCRIPT = Path(__file__).parents[2] / "recipes" / "speedrun.sh"
_SMALL = ("optim.samples_seen=64", "optim.global_batch=32")


def run(*, smoke: bool = False) -> dict[str, float]:
    before = cpu_minutes()
    with tempfile.TemporaryDirectory() as made:
        for words in _commands(Path(made), _SMALL if smoke else ()):
            less = ("--precision", "fp32") if smoke and words[0] == "export" else ()
            ptft(*words, *less, smoke=smoke)
        found = json.loads((Path(made) / "results.json").read_text())
    recall = {
        way: {domain: figures["i2t_recall@1"] for domain, figures in one.items()}
        for way, one in zip(("start", "plain", "guarded"), found.values(), strict=True)
    }
    print(f"{'recall@1':<10}" + "".join(f"{way:>10}" for way in recall))
    for domain in ("shaded", "line"):
        print(f"{domain:<10}" + "".join(f"{one[domain]:>10.1%}" for one in recall.values()))
    start, plain, guarded = recall.values()
    return {
        "kept": _share(guarded["shaded"], start["shaded"]),
        "plain_kept": _share(plain["shaded"], start["shaded"]),
        "line_over_plain_points": round(100 * (guarded["line"] - plain["line"]), 2),
        "cpu_minutes": round(cpu_minutes() - before, 1),
    }


def _share(now: float, before: float) -> float:
    return round(now / before, 4) if before else 0.0


def _commands(folder: Path, overrides: tuple[str, ...]) -> Iterator[list[str]]:
    """The words behind ``ptft`` of each of the script's commands, in their order."""
    for line in _SCRIPT.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("ptft "):
            words = [word.replace("$OUT", str(folder)) for word in shlex.split(line)[1:]]
            yield [
                each
                for word in words
                if not re.match(r"[12]?>|&$", word)
                for each in (overrides if word == "${TRAIN[@]}" else (word,))
            ]
