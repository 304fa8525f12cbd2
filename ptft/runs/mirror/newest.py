"""The copies of a run that a mirror holds."""

from collections.abc import Callable

from ptft.errors import ArtifactError
from ptft.runs.mirror.manifest import MAX_MANIFEST, Manifest, manifest_number
from ptft.runs.mirror.store import MirrorStore

__all__ = ["read_manifests"]

_MOST = 4 * MAX_MANIFEST  # bytes of all, which take three times that as values


def read_manifests(
    store: MirrorStore, tell: Callable[[str], object] = lambda _: None, *, most: int = _MOST
) -> list[Manifest]:
    """The manifests of a mirror, newest first; what is none is told of and passed over.

    Args:
        most: bytes of all together; older ones are told of and passed over.

    Raises:
        MirrorError: the store does not answer.
    """
    found: list[Manifest] = []
    for name in sorted(store.names("manifests"), reverse=True):
        if manifest_number(name) is None:
            continue
        where = f"{store.url}/{name}"
        try:
            data = store.read(name, most=MAX_MANIFEST)
            most -= len(data or b"")
            if most < 0:
                tell(f"{where} and older ones: manifests without end; passed over")
                break
            if data is not None:
                found.append(Manifest.parse(data, where))
        except ArtifactError as error:
            tell(f"{error}; passed over")
    return found
