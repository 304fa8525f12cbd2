"""What opening a set costs from 1e4 samples to 1e7, by kind, beside other libraries.

Each measurement is a process of its own: open the set, read a first batch of 64 by one worker, open
it again. A set of any size is a folder of links to one set of 10,000: directories for pictures in
class folders (``folder``) and for those that a metadata.csv or metadata.jsonl names (``csv``,
``jsonl``), files for tars with indexes (``shards``; each has an index of its own, with other
digests) and for parquet (``table``, ``data.join: none``). The files of pictures are sparse, 100 KB
and more, so that their sum is what a set of photographs has and the disk holds nothing.

``cpu`` is CPU seconds of the process and its worker to the first batch, ``main`` and ``worker``
private memory (RssAnon; at its highest, seen every 10 ms, and after the batch), all three beyond
those of 200 samples of the same kind; ``reopen`` the CPU seconds of opening once more. What is
mapped from files is shared by all processes and stays out of it. ``exponent`` is of the CPU between
the last two sizes, ``at 1e9`` what follows from it. Peers are opened and read in the same way, as
their own documentation has it, up to 1e6.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.data.kept import REST
from tests.bench._parts import apart
from tests.bench._processes import Watch, family, private_mb
from tests.bench._scale_peers import OPEN, loaded
from tests.bench._scale_sets import Sets

BASE, BATCH, FLOOR = 10_000, 64, 200
KINDS = ("shards", "csv", "table", "folder", "jsonl")
PEER_SIZES = (10**4, 10**5, 10**6)
SIZES = dict.fromkeys(KINDS, (*PEER_SIZES, 10**7)) | dict.fromkeys(("folder", "jsonl"), PEER_SIZES)
PEERS = {"folder": "torchvision", "csv": "open_clip", "shards": "webdataset", "table": "datasets"}


@dataclass
class Found:
    """Of one opening."""

    cpu: float = 0.0
    reopen: float = 0.0
    main_mb: float = 0.0
    worker_mb: float = 0.0


def _measure(open_set: Callable[[], Any], batches: Callable[[Any], Iterator[Any]]) -> Found:
    found = Found()
    before = family(os.getpid())
    with Watch().watching() as watch:
        samples = open_set()
        read = batches(samples)
        next(read)
    after = family(os.getpid())
    found.cpu = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
    found.main_mb = watch.high
    # the server that workers are forked from is below this process too, and holds less
    found.worker_mb = max(private_mb(pid) for pid in after if pid != os.getpid())
    read.close()  # type: ignore[attr-defined]
    started = time.process_time()
    open_set()
    found.reopen = time.process_time() - started
    return found


def by_ptft(kind: str, folder: Path, cache: Path) -> Found:
    """One measurement in this process."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    import torch

    from ptft.data import BatchSpec, open_split, train_batches
    from ptft.preprocess import TextTokenizer, clip_bpe_json
    from ptft.preprocess.images import ImagePreprocess
    from ptft.recipe.data import FolderData, ShardsData, TableData

    torch.set_num_threads(1)
    sections = {
        "shards": lambda: ShardsData(train=str(folder / "*.tar")),
        "csv": lambda: FolderData(train=str(folder)),
        "jsonl": lambda: FolderData(train=str(folder)),
        "table": lambda: TableData(
            train=str(folder / "*.parquet"), image="image", label="label", join="none"
        ),
        "folder": lambda: FolderData(train=str(folder)),
    }
    section = sections[kind]()
    words = TextTokenizer(clip_bpe_json(), context_length=16) if kind in ("csv", "jsonl") else None
    spec = BatchSpec(ImagePreprocess(size=(32, 32)), size=BATCH, tokenizer=words)
    return _measure(
        lambda: open_split(section, "train"),
        lambda samples: train_batches(samples, spec, start=0, end=BATCH * 4, workers=1),
    )


def by_peer(kind: str, folder: Path, cache: Path) -> Found:
    """The same of another library."""
    os.environ |= {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    import torch

    torch.set_num_threads(1)
    return _measure(OPEN[kind](folder), lambda samples: loaded(samples, BATCH))


def measure(
    sets: Sets, kind: str, sizes: tuple[int, ...], by: Callable[..., Found], floor: int
) -> dict[int, Found]:
    """Of each size, beyond the floor's, which comes twice: the first reads libraries from disk."""
    found: dict[int, Found] = {}
    for count in (floor, floor, *sizes):
        place = sets.home / f"{kind}_{count}"
        if place.is_dir():
            folder = place
        else:
            folder = sets.make(kind, count)
            time.sleep(REST)  # of what was changed just now nothing is kept
        with tempfile.TemporaryDirectory() as cache:
            found[count] = apart(by, kind, folder, Path(cache))
    least = found.pop(floor)
    for one in found.values():
        one.cpu -= least.cpu
        one.main_mb -= least.main_mb
        one.worker_mb -= least.worker_mb
    return found


def _report(name: str, found: dict[int, Found]) -> None:
    sizes = list(found)
    for count, one in found.items():
        print(
            f"{name:<24}{count:>12,}{one.cpu:>10.2f}{one.reopen:>10.2f}"
            f"{one.main_mb:>10.0f}{one.worker_mb:>10.0f}"
        )
    if len(sizes) > 1:
        last, before = max(found[sizes[-1]].cpu, 1e-3), max(found[sizes[-2]].cpu, 1e-3)
        exponent = math.log(last / before) / math.log(sizes[-1] / sizes[-2])
        far = last * (1e9 / sizes[-1]) ** exponent
        print(f"{name:<24}exponent {exponent:.2f}, at 1e9: {far:,.0f} CPU-s")


def run(*, smoke: bool = False) -> dict[str, float]:
    sizes = dict.fromkeys(KINDS, (400,)) if smoke else SIZES
    base, floor = (100, 200) if smoke else (BASE, FLOOR)
    figures: dict[str, float] = {}
    print(
        f"{'kind':<24}{'samples':>12}{'cpu s':>10}{'reopen s':>10}{'main MB':>10}{'worker MB':>10}"
    )
    with tempfile.TemporaryDirectory() as home:
        sets = Sets(Path(home), base)
        for kind in KINDS:
            found = measure(sets, kind, sizes[kind], by_ptft, floor)
            _report(kind, found)
            last = found[sizes[kind][-1]]
            figures |= {
                f"{kind}_cpu_s": round(last.cpu, 2),
                f"{kind}_reopen_s": round(last.reopen, 2),
                f"{kind}_main_mb": round(last.main_mb, 1),
                f"{kind}_worker_mb": round(last.worker_mb, 1),
            }
            if smoke or kind not in PEERS:
                continue
            peers = measure(sets, kind, PEER_SIZES, by_peer, floor)
            _report(f"{kind}, {PEERS[kind]}", peers)
            figures[f"{kind}_peer_cpu_s"] = round(peers[PEER_SIZES[-1]].cpu, 2)
    return figures


BARS = {
    **{f"{kind}_cpu_s": ("<=", 12.0) for kind in ("shards", "csv", "table", "jsonl")},
    **{f"{kind}_worker_mb": ("<=", 60.0) for kind in KINDS},
    **{f"{kind}_main_mb": ("<=", 250.0) for kind in ("shards", "csv", "table", "jsonl")},
    "folder_cpu_s": ("<=", 6.0),
    "folder_main_mb": ("<=", 60.0),
    **{f"{kind}_reopen_s": ("<=", 1.0) for kind in KINDS},
}
