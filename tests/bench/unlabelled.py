"""What pictures without labels add to few labels: groceries, and one style of emoji.

Groceries at 2 and 4 labels a class, from MobileNetV2; the pictures without labels are those of the
training split, of which nothing but the pixels is read. Emoji at 64 captions of `fluenthc`, from
`ptft train pretrain/emoji` (its time is apart); there a teacher has no classes to name, so that the
start that adapts is the only arm. Four training pictures that test shows too, of concepts which
this style draws alike, are left out of those without labels: a comparison refuses them. Each arm is
held against the labelled arm that is best on test, which is harder than against the one that
validation likes best.
"""

import io
import json
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

from ptft.compare.gathered import Arm, gather
from ptft.compare.results import MIXED, Cells
from ptft.compare.stats import paired_interval
from ptft.recipe.load import load_comparison
from tests.bench._parts import ptft, shared_data

__all__ = ["BARS", "run"]

_SETS = ("grocery_2", "grocery_4", "emoji_64")
BARS = {f"{name}_points": (">=", 3.0) for name in _SETS}
BARS |= {f"{name}_low_points": (">=", 0.0) for name in _SETS}

_LABELLED = "{kind: zero_shot}, {kind: full}, {kind: lp_ft}"
_SMALLER = (
    "optim.samples_seen=16",
    "optim.global_batch=16",
    "compare.unlabelled_passes=0.5",
    "compare.seeds=1",
    "data.test=../shared/data/grocery/val-*.tar",
)


def run(*, smoke: bool = False) -> dict[str, float]:
    shared_data("grocery", "mobilenetv2", "emoji")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        budgets = [2] if smoke else [2, 4]
        arms, figures["grocery_minutes"] = _grocery(folder, budgets, smoke=smoke)
        for budget in budgets:
            own = [arm for arm in arms if arm.budget == budget]
            figures |= _figures(f"grocery_{budget}", own)
        if not smoke:  # the start of the emoji takes minutes
            arms, figures["emoji_minutes"] = _emoji(folder)
            figures |= _figures("emoji_64", arms)
    return figures


def _grocery(folder: Path, budgets: list[int], *, smoke: bool) -> tuple[list[Arm], float]:
    few = ", limit: 64" if smoke else ""
    labelled = "{kind: zero_shot}, {kind: probe}" if smoke else _LABELLED
    options = [
        f"data.unlabelled={{kind: shards, train: ../shared/data/grocery/train-*.tar{few}}}",
        f"compare.arms=[{labelled}, {{kind: self_train}}, {{kind: adapt_unlabelled}}]",
        f"compare.budgets={budgets}",
        *(_SMALLER if smoke else ()),
    ]
    return _compared("compare/grocery", folder / "grocery", options, smoke=smoke)


def _emoji(folder: Path) -> tuple[list[Arm], float]:
    start = folder / "start"
    ptft("train", "pretrain/emoji", f"run.dir={start}", "run.trackers=[]", smoke=False)
    options = [
        f"init.from={start}",
        f"data.unlabelled={{kind: shards, train: {_pictures(folder / 'pictures.tar')}}}",
        "compare.arms=[{kind: zero_shot}, {kind: full}, {kind: l2_sp}, {kind: adapt_unlabelled}]",
        "compare.budgets=[64]",
        "compare.wise=[]",
        "compare.retain=[]",
    ]
    return _compared("compare/emoji", folder / "emoji", options, smoke=False)


def _pictures(path: Path) -> Path:
    """Write the training pictures of the style, without texts, that neither val nor test shows."""
    place = shared_data("emoji") / "emoji" / "fluenthc"

    def read(split: str) -> dict[str, bytes]:
        with tarfile.open(place / f"{split}-000000.tar") as tar:
            members = [one for one in tar if one.name.endswith(".webp")]
            return {one.name: tar.extractfile(one).read() for one in members}

    def pixels(data: bytes) -> bytes:
        return Image.open(io.BytesIO(data)).convert("RGB").tobytes()

    shown = {pixels(data) for split in ("val", "test") for data in read(split).values()}
    with tarfile.open(path, "w") as tar:
        for name, data in read("train").items():
            if pixels(data) not in shown:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def _compared(
    recipe: str, folder: Path, options: list[str], *, smoke: bool
) -> tuple[list[Arm], float]:
    minutes = ptft("compare", recipe, f"run.dir={folder}", *options, smoke=smoke)
    print((folder / "report.md").read_text().partition("## What it took here")[0])
    comparison = load_comparison(folder / "recipe.yaml")
    cells = Cells(folder, comparison).all()
    return gather(cells, confidence=comparison.compare.confidence), round(minutes, 1)


def _figures(name: str, arms: list[Arm]) -> dict[str, float]:
    """Of the better of the two arms: what it gains over the best labelled one, in points."""
    plain = [arm for arm in arms if not arm.name.endswith(MIXED)]
    best = max((arm for arm in plain if not arm.base), key=lambda arm: arm.test)
    gains: list[tuple[float, float]] = []
    for arm in plain:
        if not arm.base:
            continue
        low, high = paired_interval(arm.test_sq, best.test_sq, confidence=0.95)
        gains.append((100 * (arm.test - best.test), 100 * low))
        said = {"arm": arm.name, "over": best.name, "gain": gains[-1][0], "low": 100 * low}
        print(json.dumps({"set": name, **said, "high": 100 * high}))
    gain, low = max(gains)
    return {f"{name}_points": round(gain, 2), f"{name}_low_points": round(low, 2)}
