"""Two ranks of one run, each with a second device: FSDP2 without a GPU.

``python -m tests.support.rehearsal_ranks FOLDER``, with changes to the recipe as JSON on the
standard input, is the run on the CPU in ``FOLDER/cpu`` and on the devices in ``FOLDER/device``.
Each rank leaves what its device saw in ``FOLDER/rank-<number>.json``. Tensors of the devices go
from rank to rank by gloo, where a GPU has NCCL: what is gathered and reduced is the same.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist

from ptft.train import loop
from tests.support.ranks import fork
from tests.support.rehearsed import Marked, Rehearsed
from tests.support.runs import largest_difference, run
from tests.support.second_device import second_device

__all__ = ["by_gloo", "rehearse_ranks"]

RANKS = 2


def rehearse_ranks(folder: Path, changes: dict[str, Any]) -> Rehearsed:
    """A run on two ranks, on the CPU and on second devices: what either rank saw.

    Raises:
        RuntimeError: a rank failed; what it said.
    """
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, str(folder)],
        input=json.dumps(changes),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    seen = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]
    return Rehearsed(
        largest_difference(folder / "cpu", folder / "device"),
        [one["waits"] for one in seen],
        [line for one in seen for line in one["pageable"]],
        sum(one["calls"] for one in seen),
    )


@contextlib.contextmanager
def by_gloo() -> Iterator[None]:
    """Whoever asks for NCCL is given gloo: the devices' memory is the host's."""
    plain = dist.init_process_group

    def init_process_group(backend: str, *, device_id: Any, **options: Any) -> None:
        assert (backend, device_id.type) == ("nccl", "cuda")
        plain("gloo", **options)

    with mock.patch.object(dist, "init_process_group", init_process_group):
        yield


def _on_device(folder: Path, **changes: Any) -> None:
    with second_device(count=RANKS) as seen, by_gloo():
        marked = Marked(seen)
        with mock.patch.object(loop, "batches", marked.batches):
            run(folder / "device", run__device="cuda", **changes)
    found = {"waits": marked.waits(), "pageable": seen.pageable, "calls": seen.calls}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


def _main(folder: Path, changes: dict[str, Any]) -> None:
    fork(RANKS, run, folder / "cpu", changes)
    fork(RANKS, _on_device, folder, changes)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), json.load(sys.stdin))
