"""A rank that is gone is one line on the others."""

import subprocess
import sys
from pathlib import Path

RANK = """
import os, sys
import torch.distributed as dist
from ptft.distributed import World
from ptft.errors import LostRankError
from ptft.lost import told_of_the_lost
rank, place = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", store=dist.FileStore(place, 2), rank=rank, world_size=2)
world = World(rank, 2, rank, 0, dist.group.WORLD, dist.group.WORLD)
assert world.mean({"rank": float(rank)}) == {"rank": 0.5}
if rank == 1:
    os._exit(9)
try:
    with told_of_the_lost(rank, 2):
        raise RuntimeError("of something else")
except RuntimeError as error:
    assert str(error) == "of something else"
try:
    with told_of_the_lost(rank, 2):
        world.barrier()
except LostRankError as error:
    print(error)
    os._exit(0)
"""


def test_it_says_who_is_gone_and_what_to_do(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 9]
    [line] = said[0].splitlines()
    assert line.startswith("rank 0: another rank or its machine is gone; the same command with")
