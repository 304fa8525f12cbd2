"""What test asks of a classifier, and what a model says: for a view by class."""

from dataclasses import asdict, dataclass
from pathlib import Path

from ptft.artifact import read_as, write_json
from ptft.compare.boxes import BoxMeasurement
from ptft.compare.metric import Measurement
from ptft.data import SampleSet
from ptft.errors import ArtifactError
from ptft.evaluate.class_ranks import ClassRanks

__all__ = ["QUERIES", "ClassQueries", "read_queries", "said_of"]

QUERIES = "queries.json"


@dataclass(frozen=True)
class ClassQueries:
    """The queries of test, where they are pictures of classes.

    Attributes:
        classes: names, by number.
        labels: the class of each query.
        names: of the samples.
        places: of the samples in test.
    """

    classes: list[str]
    labels: list[int]
    names: list[str]
    places: list[int]


def read_queries(folder: Path) -> ClassQueries | None:
    """What test asks, of a comparison's folder; None where it has no classes.

    Raises:
        ArtifactError: its lists do not fit each other.
    """
    path = folder / QUERIES
    if not path.is_file():
        return None
    found = read_as(path, ClassQueries)
    count = len(found.labels)
    if not count == len(found.names) == len(found.places):
        raise ArtifactError(f"{path}: allowed: {count} names and places, one of each label")
    if not all(0 <= label < len(found.classes) for label in found.labels):
        raise ArtifactError(f"{path}: labels: allowed: 0 to {len(found.classes) - 1}")
    return found


def said_of(measured: Measurement | BoxMeasurement, samples: SampleSet, folder: Path) -> list[int]:
    """The class that is said of each query, by its number in the folder's queries, which the first
    who measures writes; empty where queries are no pictures of classes."""
    if isinstance(measured, BoxMeasurement) or not isinstance(measured.ranks, ClassRanks):
        return []
    if measured.places is None:
        return []
    places, labels = measured.places.tolist(), measured.ranks.labels_n.tolist()
    kept = read_queries(folder)
    if kept is None:
        names = [samples.name(place) for place in places]
        kept = ClassQueries(list(measured.classes), labels, names, places)
        write_json(folder / QUERIES, asdict(kept))
    number = {name: place for place, name in enumerate(kept.classes)}
    assert kept.labels == [number[measured.classes[label]] for label in labels]
    said = measured.ranks.said_n.tolist()
    return [number[measured.classes[place]] for place in said]
