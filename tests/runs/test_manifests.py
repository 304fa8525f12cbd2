"""A mirror in a bucket that others write to: what is read of it at once has an end."""

from pathlib import Path

from ptft.runs.mirror.manifest import Manifest, manifest_name
from ptft.runs.mirror.newest import read_manifests
from ptft.runs.mirror.store import MirrorStore


def test_manifests_without_end_are_read_from_the_newest_on(tmp_path: Path) -> None:
    store = MirrorStore(str(tmp_path))
    file = {"run.json": {"sha256": "0" * 64, "size": 1}}
    sizes = []
    for number in range(1, 6):
        data = Manifest(number, (0, 0, number), "now", file).dump()
        store.write(manifest_name(number), [data])
        sizes.append(len(data))
    assert [one.number for one in read_manifests(store)] == [5, 4, 3, 2, 1]
    told: list[str] = []
    found = read_manifests(store, told.append, most=sum(sizes[-2:]))
    assert [one.number for one in found] == [5, 4]
    assert len(told) == 1
    assert told[0].endswith("0000000003.json and older ones: manifests without end; passed over")
