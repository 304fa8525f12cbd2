"""Pack a recipe's pictures into shards of the size that training needs, once and for all.

Decoding a photograph of 12 megapixels takes some fifty times as long as decoding the 256 pixels of
it that a model sees. A pack is WebDataset tars whose pictures have at most so many pixels on the
shorter side; captions and labels are those of the source. It is made a shard at a time: what was
finished when a run ended is kept, and neither that nor the number of processes changes a byte.
"""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptft.artifact import read_json, write_json
from ptft.data.fields.field_set import FieldSection, FieldSet
from ptft.data.open import open_split
from ptft.data.packing.shard import PackedShard, ShardPacker
from ptft.data.reading.loader import read_ahead
from ptft.errors import DataError, UsageError
from ptft.recipe.check import Split
from ptft.recipe.data import DataSection, FolderData, ShardsData, TableData
from ptft.speech import ProgressCallback, warn

__all__ = ["CLASSES", "MANIFEST", "PackSettings", "Packed", "pack"]

MANIFEST = "pack.json"
"""What a pack was made of, and each of its shards with the samples that were skipped."""
CLASSES = "classes.json"
_CHOOSES = ("limit", "shots", "draw_seed", "hold_out")  # among the samples of a section
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class PackSettings:
    """How a pack is made.

    Attributes:
        short_side: pixels; a picture whose shorter side has more is reduced to it, none enlarged.
        quality: of the JPEGs that are written, 1 to 95.
        samples_per_shard: of the source, skipped ones among them.
    """

    short_side: int
    quality: int = 90
    samples_per_shard: int = 5000


@dataclass(frozen=True)
class Packed:
    """A finished pack.

    Attributes:
        section: the data section that reads it, as the source's reads the source.
        shards: of all splits that were asked for.
        total: samples of the source.
    """

    section: ShardsData
    shards: list[PackedShard]
    total: int

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Name and reason of each sample that could not be read."""
        return [entry for shard in self.shards for entry in shard.skipped]


def pack(
    section: DataSection,
    out: Path,
    settings: PackSettings,
    *,
    splits: Sequence[Split] | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Packed:
    """Pack the splits of a data section; go on where an earlier call with the same settings ended.

    Args:
        section: of a recipe. What chooses among its samples (``limit``, ``shots``, ``hold_out``)
            does not apply, and goes on to the new section.
        out: folder of the pack.
        settings: see there.
        splits: which; absent: all that the section has.
        seed: of the recipe.
        workers: processes that pack; absent: one a core.
        progress: told after each shard.

    Raises:
        UsageError: the section draws its pictures, has boxes in them, lacks a split, or ``out``
            holds something else.
        DataError: the source cannot be read at all, or a shard cannot be written.
    """
    if not isinstance(section, ShardsData | FolderData | TableData):
        raise UsageError(
            f"data.kind: {section.kind!r} has no stored pictures to pack; "
            "allowed: shards, folder, table"
        )
    if section.boxes is not None:
        raise UsageError(
            f"data.boxes: {section.boxes!r}: packing makes pictures smaller, and boxes stay as "
            "they are; allowed: a section without boxes"
        )
    chosen = splits or [split for split in _SPLITS if getattr(section, split) is not None]
    kept = {name: getattr(section, name) for name in _CHOOSES if hasattr(section, name)}
    whole = section.model_copy(update=dict.fromkeys(kept))
    sets = {split: _open(whole, split, seed) for split in chosen}
    manifest = _Manifest(out, settings, whole)
    shards: list[PackedShard] = []
    for split, samples in sets.items():
        shards += _pack_split(samples, split, out, settings, manifest, workers, progress)
    new = next(iter(sets.values())).packed_section(**_paths(out, sets))
    packed = Packed(
        new.model_copy(update=kept), shards, total=sum(len(samples) for samples in sets.values())
    )
    chosen_by = [f"data.{name}" for name, value in kept.items() if value is not None]
    if chosen_by and packed.skipped:
        warn(
            f"{', '.join(chosen_by)}: draws other samples than before, of those that are left: "
            f"{len(packed.skipped):,} could not be read"
        )
    return packed


def _open(section: DataSection, split: Split, seed: int) -> FieldSet:
    samples = open_split(section, split, seed=seed)
    assert isinstance(samples, FieldSet), "stored samples have fields"
    return samples


def _pack_split(
    samples: FieldSet,
    split: str,
    out: Path,
    settings: PackSettings,
    manifest: "_Manifest",
    workers: int | None,
    progress: ProgressCallback | None,
) -> list[PackedShard]:
    count, run = len(samples), settings.samples_per_shard
    manifest.check_source(split, samples)
    packer = ShardPacker(samples, out, split, run, settings.short_side, settings.quality)
    runs = [range(start, min(start + run, count)) for start in range(0, count, run)]
    shards = {packer.name(indices): manifest.finished(packer.name(indices)) for indices in runs}
    left = [indices for indices in runs if shards[packer.name(indices)] is None]
    done = count - sum(len(indices) for indices in left)
    if progress is not None:
        progress(split, done, count)
    with closing(read_ahead(packer, left, _workers(workers, samples, len(left)))) as packed:
        for indices, shard in zip(left, packed, strict=True):
            manifest.add(shard)
            shards[shard.name] = shard
            done += len(indices)
            if progress is not None:
                progress(split, done, count)
    kept = [shard for shard in shards.values() if shard is not None]
    if not any(shard.samples for shard in kept):
        name, reason = kept[0].skipped[0]
        raise DataError(f"none of {count} samples could be read; first: {name}: {reason}")
    return kept


def _workers(workers: int | None, samples: FieldSet, jobs: int) -> int:
    """Processes that pack; none for one shard, one for a set that is read in order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = (cores or 1) if workers is None else workers
    if samples.window is not None and samples.blocks is None:
        wanted = min(wanted, 1)
    return min(wanted, jobs if jobs > 1 else 0)


def _paths(out: Path, sets: dict[Split, FieldSet]) -> dict[str, str]:
    """The new section's paths; writes the class names, if there are any."""
    paths: dict[str, str] = {split: str(out / f"{split}-*.tar") for split in sets}
    names = next((samples.classes for samples in sets.values() if samples.classes), None)
    if names is None:
        return paths
    write_json(out / CLASSES, names)
    return {**paths, "classes": str(out / CLASSES)}


class _Manifest:
    """``pack.json``: the settings, the source, and the shards that are finished.

    Raises:
        UsageError: the folder holds a pack of other settings or of another source, or other things.
    """

    def __init__(self, out: Path, settings: PackSettings, section: FieldSection) -> None:
        self._path = out / MANIFEST
        source = section.model_dump(mode="json", exclude_defaults=True)
        head = {**asdict(settings), "data": {"kind": section.kind, **source}}
        if self._path.is_file():
            self._values: dict[str, Any] = read_json(self._path)
            for key, value in head.items():
                if self._values.get(key) != value:
                    raise UsageError(
                        f"{out}: it holds a pack with {key} {self._values.get(key)!r}, not "
                        f"{value!r}; allowed: the same, or an empty folder"
                    )
            return
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(f"{out}: it is not empty and holds no {MANIFEST}; allowed: a new one")
        out.mkdir(parents=True, exist_ok=True)
        self._values = {**head, "source": {}, "shards": {}}

    def check_source(self, split: str, samples: FieldSet) -> None:
        """Note what the source is, or hold it against what was noted. Raises UsageError."""
        now = {"samples": len(samples), "fingerprint": samples.fingerprint()}
        noted = self._values["source"].setdefault(split, now)
        if noted != now:
            raise UsageError(
                f"{self._path}: the source's {split} had {noted['samples']} samples and has "
                f"{len(samples)}, or its files changed; allowed: the same, or an empty folder"
            )

    def finished(self, name: str) -> PackedShard | None:
        """A shard that was written before and is there."""
        values = self._values["shards"].get(name)
        if values is None:
            return None
        shard = PackedShard(**{**values, "skipped": [(n, r) for n, r in values["skipped"]]})
        path = self._path.with_name(name)
        there = path.is_file() and path.stat().st_size == shard.size
        return shard if there or not shard.samples else None

    def add(self, shard: PackedShard) -> None:
        self._values["shards"][shard.name] = asdict(shard)
        self._values["shards"] = dict(sorted(self._values["shards"].items()))
        write_json(self._path, self._values)
