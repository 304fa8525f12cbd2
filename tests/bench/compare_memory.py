"""What a comparison's job holds beyond its model, with 20,000 pictures of 224 pixels beside 200.

A job, an arm at a budget, is a process of its own here as in ``ptft compare``, which jobs of a
machine run side by side. It is measured whole: an arm that is trained and mixed with its start, and
the arms with pictures without labels, of which half of the 20,000 are; the rest are those that are
learned from, chosen by and tested on. The tower is a small one, so that what is seen is what the
pictures take and not what the weights do; ``trained`` is the training's own share (batches of 32).
Figures are MB at the peak beyond what the process held with the start in memory.
"""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ptft.artifact import write_atomic
from ptft.model import save_model
from ptft.recipe import Comparison, dump_recipe
from ptft.recipe.load import load_comparison, parse_comparison
from tests.bench._parts import apart
from tests.support.tiny import build, towers_section

__all__ = ["BARS", "run"]

PICTURES, FEW = 20_000, 200
BARS = {"job_mb": ("<=", 1200.0), "growth_mb": ("<=", 1200.0)}

_CLASSES, _BUDGET, _SIDE = 5, 2, 256
_SHARES = {"train": 0.1, "val": 0.1, "test": 0.3, "more": 0.5}
_ARMS = ("full", "self_train", "adapt_unlabelled")


def run(*, smoke: bool = False) -> dict[str, float]:
    counts = (100,) if smoke else (FEW, PICTURES)
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as made:
            _write_pictures(Path(made), count)
            save_model(build(towers_section(image_size=224, embed_dim=64)), Path(made) / "start")
            recipe = Path(made) / "recipe.yaml"
            write_atomic(recipe, dump_recipe(_comparison(Path(made))))
            found[count] = {arm: apart(_job, recipe, number) for number, arm in enumerate(_ARMS)}
    few, many = found[counts[0]], found[counts[-1]]
    print(f"{'MB':<18}{counts[0]:>10,}{counts[-1]:>10,}{'trained':>10}")
    for arm in _ARMS:
        print(f"{arm:<18}{few[arm][0]:>10.0f}{many[arm][0]:>10.0f}{many[arm][1]:>10.0f}")
    return {
        "job_mb": round(max(held for held, _ in many.values()), 1),
        "growth_mb": round(max(many[arm][0] - few[arm][0] for arm in _ARMS), 1),
        "trained_mb": round(max(trained for _, trained in many.values()), 1),
        "pictures": counts[-1],
    }


def _write_pictures(folder: Path, count: int) -> None:
    """Smooth noise in folders of classes; each file has an end of its own, so that no two are
    one picture."""
    encoded = list(_encoded(32))
    for split, share in _SHARES.items():
        for number in range(round(share * count)):
            place = folder / split / f"c{number % _CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            own = f"{split} {number}".encode()
            (place / f"{number}.jpg").write_bytes(encoded[number % len(encoded)] + own)


def _encoded(count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
        stream = io.BytesIO()
        coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
        yield stream.getvalue()


def _comparison(folder: Path) -> Comparison:
    data = {"kind": "folder", **{one: str(folder / one) for one in ("train", "val", "test")}}
    values = {
        "name": "memory",
        "init": {"from": str(folder / "start")},
        "data": data | {"unlabelled": {"kind": "folder", "train": str(folder / "more")}},
        "objective": {"kind": "classify", "head": "random"},
        "optim": {"samples_seen": 256, "global_batch": 32, "lr": 1e-3, "precision": "fp32"},
        "evaluate": [{"kind": "classify"}],
        "run": {"dir": str(folder / "run"), "device": "cpu"},
        "compare": {
            "arms": [{"kind": kind} for kind in _ARMS],
            "budgets": [_BUDGET],
            "seeds": 1,
            "trials": 1,
            "wise": [0.5],
            "unlabelled_passes": 0.5,
        },
    }
    return parse_comparison(values, where="compare_memory")


def _job(recipe: Path, arm: int) -> tuple[float, float]:
    """Run a job in this process: MB at the peak beyond what it held with the start, and of these
    what training takes by itself."""
    from ptft.compare.peak import peak_bytes
    from ptft.compare.results import Cells
    from ptft.compare.start import starting_model
    from ptft.compare.target import Target
    from ptft.compare.task import Task

    comparison = load_comparison(recipe)
    target = Target(comparison)
    start = starting_model(comparison, target)
    held = _resident()
    del start
    folder = Path(str(comparison.run.dir))
    section = comparison.compare.arms[arm]
    Task(comparison, section, _BUDGET, folder).run()  # whose beginning begins the peak anew
    cell = Cells(folder, comparison).read(section.label, _BUDGET, 0)
    assert cell is not None
    return (peak_bytes() - held) / 1e6, cell.costs.peak_bytes / 1e6


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
