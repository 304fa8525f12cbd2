"""Small sets, starts and comparisons that the rule of `ptft compare` is judged on.

Every set is made from ../shared/data (or drawn): some hundred pictures at 32 pixels, parted anew by
a digest, with more to test on than there is to learn from, since it is the rule that is measured.
A start is trained in seconds, and stops early on the very set that is to be retained, as real ones
do.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RETENTION", "SETS", "STARTS", "Wanted", "comparison", "make_set", "start_recipe"]


@dataclass(frozen=True)
class Row:
    """A picture's file, its name in words and its class ("" for none)."""

    key: str
    suffix: str
    picture: bytes
    text: str
    label: str


@dataclass(frozen=True)
class Wanted:
    """A comparison: a start, a set, and whether classes or captions are learned."""

    start: str
    data: str
    captions: bool = False
    seeds: int = 2
    seen: int = 1024

    @property
    def name(self) -> str:
        return f"{self.start}-{self.data}{'-captions' if self.captions else ''}"


SETS = [
    Wanted("coloured", "fluenthc", True, 3, 1536),
    Wanted("coloured", "fluenthc", False, 3, 1536),
    Wanted("coloured", "blob", captions=True),
    Wanted("photos", "digits"),
    Wanted("coloured", "tiles"),
    Wanted("shaded", "fashion"),
    Wanted("photos", "tiles"),
    Wanted("flat", "noto"),
    Wanted("coloured", "packs"),
    Wanted("shaded", "digits"),
    Wanted("photos", "fashion"),
    Wanted("coloured", "fashion"),
    Wanted("shaded1", "tiles"),
    Wanted("flat", "grocery"),
    Wanted("coloured", "digits"),
    Wanted("shaded", "line", captions=True),
    Wanted("photos", "grocery"),
    Wanted("coloured", "blob"),
    Wanted("shaded1", "packs"),
    Wanted("shaded1", "line", captions=True),
    Wanted("flat", "twemoji", captions=True),
    Wanted("coloured", "lucide", captions=True),
    Wanted("flat", "bi", captions=True),
    Wanted("coloured", "tiles", captions=True),
]

RETENTION = 0.95
_SPLITS = ("train", "val", "test")
_BUDGETS = {False: [2, 8, 32], True: [32, 128, 384]}
_TEXT = {"width": 128, "layers": 2, "heads": 4, "context_length": 32}
_TINY = {"image": "test_resnet", "image_size": 32, "text": _TEXT, "embed_dim": 128}
_SCENES = {"kind": "scenes", "size": 32, "train": 8192, "val": 256, "test": 512}
_NOTO, _FLAT = ["noto", "twemoji", "fluent3d"], ["fluentflat", "blob"]
STARTS: dict[str, dict[str, Any]] = {
    "coloured": {"styles": _NOTO, "seed": 0},
    "flat": {"styles": _FLAT, "seed": 3},
    "shaded": {"seed": 0},
    "shaded1": {"seed": 1},
    "photos": {},
}


def start_recipe(name: str, shared: Path, folder: Path) -> dict[str, Any]:
    """The recipe of a start that learns from captions."""
    wanted = STARTS[name]
    return {
        "name": name,
        "model": _TINY,
        "data": _learned(name, shared),
        "objective": {"kind": "clip"},
        "seed": wanted["seed"],
        "optim": {
            "lr": 2e-3,
            "global_batch": 128,
            "samples_seen": 24_576,
            "precision": "fp32",
        },
        "evaluate": [{"kind": "retrieval", "name": "before", "ks": [10], "split": "val"}],
        "early_stop": {"metric": "i2t_recall@10"},
        "run": _run(folder),
    }


def _run(folder: Path) -> dict[str, Any]:
    plain = {"trackers": [], "device": "cpu", "threads": 1, "workers": 0, "page": False}
    return {"dir": str(folder), **plain}


def _learned(start: str, shared: Path) -> dict[str, Any]:
    """What a start learned from, and the first style of it to stop early on."""
    styles = STARTS[start].get("styles")
    if styles is None:
        return {**_SCENES, "style": "shaded"}
    train = [str(shared / "emoji" / style / "train-*.tar") for style in styles]
    return {**_style(styles[0], shared), "train": train}


def _retained(start: str, shared: Path) -> list[dict[str, Any]]:
    """What is to be retained: the held-out splits of each style that a start learned from, as
    `compare/emoji` has it."""
    styles = STARTS[start].get("styles")
    sets = [_style(one, shared) for one in styles] if styles else [_learned(start, shared)]
    names = ["before", *(styles or [])[1:]]
    return [
        {"kind": "retrieval", "name": name, "ks": [10], "data": data}
        for name, data in zip(names, sets, strict=True)
    ]


def _style(style: str, shared: Path) -> dict[str, Any]:
    splits = {one: str(shared / "emoji" / style / f"{one}-*.tar") for one in _SPLITS}
    return {"kind": "shards", "join": "none", **splits, "captions": ["{name}, {keywords}"]}


def comparison(
    wanted: Wanted, shared: Path, made: Path, *, folder: Path, retention: float = RETENTION
) -> dict[str, Any]:
    """The recipe of a comparison; ``made`` holds the starts and the sets."""
    photos = wanted.start == "photos"
    values: dict[str, Any] = {
        "name": wanted.name,
        "data": _data(wanted, made),
        "optim": {"lr": 1e-3, "global_batch": 64, "samples_seen": wanted.seen, "precision": "fp32"},
        "run": _run(folder),
    }
    arms = [{"kind": kind} for kind in ("zero_shot", "scratch", "probe", "full", "lora", "l2_sp")]
    if photos:
        values |= _photos(shared)
    else:
        values["init"] = {"from": str(made / "starts" / wanted.start)}
    if wanted.captions:
        values["objective"] = {"kind": "clip"}
        values["evaluate"] = [{"kind": "retrieval", "name": "target", "ks": [10]}]
    else:
        head = "random" if photos else "prompts"
        values["objective"] = {"kind": "classify", "head": head, "label_smoothing": 0.1}
        values["evaluate"] = [{"kind": "classify", "name": "target"}]
    values["compare"] = {
        "arms": arms,
        "budgets": _BUDGETS[wanted.captions],
        "seeds": wanted.seeds,
        "trials": 1,
        "retention": retention,
    }
    if photos:
        values["compare"]["wise"] = []
        values["compare"]["budgets"] = [2, 8, 16]
    else:
        values["compare"]["retain"] = _retained(wanted.start, shared)
        if wanted.captions:
            arms.append({"kind": "replay"})
    return values


def _data(wanted: Wanted, made: Path) -> dict[str, Any]:
    if wanted.data == "line":
        return {**_SCENES, "style": "line", "train": 2048, "val": 256}
    base: dict[str, Any] = {"kind": "shards", "join": "none"}
    for split in _SPLITS:
        base[split] = str(made / "sets" / wanted.data / f"{split}.tar")
    return base if wanted.captions else {**base, "label": "label"}


def _photos(shared: Path) -> dict[str, Any]:
    """A pretrained MobileNetV2, as the built-in recipes have it, on small pictures."""
    return {
        "model": {
            "image": "mobilenetv2_100",
            "image_weights": str(shared / "mobilenetv2" / "mobilenetv2_100.safetensors"),
            "image_args": {"pad_type": "same"},
            "image_size": 48,
            "image_projection": "none",
            "embed_dim": 1280,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "text": {"width": 64, "layers": 1, "heads": 1, "context_length": 16},
        },
        "adapt": {"kind": "full", "freeze_norm": True},
        "optim": {
            "lr": 3e-3,
            "lr_image": 3e-4,
            "weight_decay": 0.05,
            "betas": [0.9, 0.999],
            "global_batch": 32,
            "samples_seen": 768,
            "precision": "fp32",
        },
    }


def make_set(name: str, shared: Path, folder: Path) -> None:
    """Write ``train.tar``, ``val.tar`` and ``test.tar`` of a set."""
    rows = list(_rows(name, shared))
    if name in ("tiles", "monsters", "noto", "blob", "fluenthc", "twemoji", "grocery"):
        counts = Counter(row.label for row in rows)
        enough = {label for label, count in counts.items() if count >= 80}
        rows = [row for row in rows if row.label in enough]
    rows.sort(key=lambda row: hashlib.sha256(row.key.encode()).digest())
    taken: Counter[str] = Counter()
    parts: dict[str, list[Row]] = {"train": [], "val": [], "test": []}
    for row in rows:  # of every class four of ten to learn from, two to choose by, four to test on
        place = taken[row.label] % 10
        taken[row.label] += 1
        split = ("train", "test", "val", "test", "train")[place % 5]
        if len(parts[split]) < {"train": 2000, "val": 320, "test": 700}[split]:
            parts[split].append(row)
    folder.mkdir(parents=True, exist_ok=True)
    for split, chosen in parts.items():
        with tarfile.open(folder / f"{split}.tar", "w") as tar:
            for row in chosen:
                fields = json.dumps({"label": row.label}).encode()
                for suffix, data in (
                    (row.suffix, row.picture),
                    ("txt", row.text.encode()),
                    ("json", fields),
                ):
                    info = tarfile.TarInfo(f"{row.key}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def _rows(name: str, shared: Path) -> Iterator[Row]:
    if name in ("fluenthc", "blob", "twemoji", "noto"):
        for key, suffix, picture, fields in _samples(shared / "emoji" / name):
            if fields["group"] != "Flags":
                text = ", ".join([fields["name"], *fields["keywords"][:4]])
                yield Row(key, suffix, picture, text, fields["group"])
    elif name in ("tiles", "monsters"):
        for key, suffix, picture, fields in _samples(shared / "pixel_tiles"):
            label = fields["kind"]
            if name == "monsters":
                label = fields["sub"]
            yield Row(key, suffix, picture, fields["txt"], label)
    elif name == "packs":
        for pack in ("bi", "lucide", "tabler"):
            for number, (key, suffix, picture, fields) in enumerate(
                _samples(shared / "line_icons" / pack)
            ):
                if number < 500:
                    yield Row(key, suffix, picture, fields["txt"], pack)
    elif name in ("bi", "lucide", "tabler"):
        for key, suffix, picture, fields in _samples(shared / "line_icons" / name):
            yield Row(key, suffix, picture, fields["txt"], "")
    else:
        source = {"fashion": "fashion_mnist", "digits": "sign_digits", "grocery": "grocery"}[name]
        classes = json.loads((shared / source / "classes.json").read_text())
        for key, suffix, picture, fields in _samples(shared / source):
            known = classes[int(fields["cls"])]
            label = known["coarse"] if name == "grocery" else known["text"]
            yield Row(key, suffix, picture, known["text"], label)


def _samples(folder: Path) -> Iterator[tuple[str, str, bytes, Mapping[str, Any]]]:
    """Every sample of a set of shards, of all splits."""
    for path in sorted(folder.glob("*.tar")):
        found: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[suffix] = file.read()
        for key, files in found.items():
            suffix = next(s for s in files if s in ("png", "jpg", "webp"))
            fields = json.loads(files.get("json", b"{}"))
            fields |= {k: v.decode() for k, v in files.items() if k in ("txt", "cls")}
            yield f"{path.stem}_{key}", suffix, files[suffix], fields
