"""The copies of a run that a mirror holds."""

from collections.abc import Callable

from ptft.errors import ArtifactError
from ptft.runs.mirror.manifest import MAX_MANIFEST, Manifest, manifest_number
from ptft.runs.mirror.store import MirrorStore

__all__ = ["read_manifests"]


def read_manifests(
    store: MirrorStore, tell: Callable[[str], object] = lambda _: None
) -> list[Manifest]:
    """The manifests of a mirror, newest first; what is none is told of and passed over.

    Raises:
        MirrorError: the store does not answer.
    """
    found = []
    for name in sorted(store.names("manifests"), reverse=True):
        if manifest_number(name) is None:
            continue
        where = f"{store.url}/{name}"
        try:
            data = store.read(name, most=MAX_MANIFEST)
            if data is not None:
                found.append(Manifest.parse(data, where))
        except ArtifactError as error:
            tell(f"{error}; passed over")
    return found
