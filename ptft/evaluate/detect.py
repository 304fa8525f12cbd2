"""What a detector finds in a set, and COCO's figures of it.

The classes of a split are asked for by their names, so that classes which training never showed
are asked like the others. Boxes and their areas are in pixels of the upright pictures. Crowds, what
need not be found, and classes that a picture was not annotated for are neither right nor wrong.

Shape letters: N places, Q queries, T boxes.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptft.data import SampleSet
from ptft.data.boxes.box import Boxes
from ptft.data.reading.batch import Skipped
from ptft.data.reading.loader import Workers, marked_batches
from ptft.errors import DataError, ModelError, suggest
from ptft.evaluate.embed import evaluating
from ptft.model import DualEncoder
from ptft.model.detecting import query_embeddings
from ptft.model.detector import DetectorSpec, PlaceAnswers
from ptft.onnx.boxes import FoundBoxes, surest_boxes
from ptft.onnx.counting import MOST_COUNTED, Counting, count_found
from ptft.recipe import DetectEvaluation
from ptft.speech import ProgressCallback

__all__ = [
    "Detections",
    "count_figures",
    "detect_figures",
    "detect_split",
    "marked_counts",
    "numbers_of",
    "precision_curves",
]

_SMALL, _LARGE = 32.0**2, 96.0**2  # pixels, as COCO counts sizes
_COUNTS = (
    *("count_error_by_class", "counted_by_class"),
    *("marked_by_class", "counted_unmarked_by_class"),
)
_BY_CLASS = 100  # classes whose own figures are told, at most


@dataclass
class Detections:
    """What a detector finds in a split, beside what is there.

    Attributes:
        classes: what was asked for.
        names: of the pictures.
        found, boxes, sizes: of each picture; sizes are width and height.
        skipped: pictures that could not be read.
        indices: numbers of the pictures in the set.
        counts: int64 (C,) of each picture, how many things of each class the detector counts; empty
            where it was asked otherwise than it chose by, see :mod:`ptft.evaluate.counting`.
    """

    classes: list[str]
    names: list[str] = field(default_factory=list)
    found: list[FoundBoxes] = field(default_factory=list)
    boxes: list[Boxes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    skipped: Skipped = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)


@torch.no_grad()
def detect_split(
    model: DualEncoder,
    samples: SampleSet,
    item: DetectEvaluation,
    *,
    workers: Workers = "auto",
    what: str = "pictures",
    progress: ProgressCallback | None = None,
) -> Detections:
    """Find in every picture of a set what its classes name.

    Raises:
        DataError: the set has no boxes, or no such class; or no picture can be read.
        ModelError: the model has no detector.
    """
    if model.detector is None:
        raise ModelError(
            f"{model.spec.name}: evaluate: detect needs a detector; this model has none"
        )
    if not samples.box_classes:
        raise DataError("evaluate: detect needs boxes, and this split has none; see data.kind")
    chosen = _chosen(item, samples.box_classes)
    result = Detections([samples.box_classes[n] for n in chosen])
    number = {old: new for new, old in enumerate(chosen)}
    with evaluating(model):
        templates = item.templates or model.detector.spec.templates
        counting = _counting(model.detector.spec, result.classes, templates)
        queries_qd = query_embeddings(model, result.classes, templates)
        batches = marked_batches(
            samples, preprocess=model.spec.preprocess, batch=min(item.batch, 32), workers=workers
        )
        with closing(batches):  # type: ignore[type-var]
            for batch in batches:
                result.skipped += batch.skipped
                if len(batch.indices):
                    images = model.normalise(batch.images.to(model.device))
                    answers = numbers_of(model.detect(images, queries_qd))
                    for frame, logits_nq, shares_n4 in zip(batch.frames, *answers, strict=True):
                        result.found.append(
                            surest_boxes(logits_nq, shares_n4, frame, most=item.most, nms=item.nms)
                        )
                        result.sizes.append(frame.size)
                        if counting is not None:
                            every = surest_boxes(logits_nq, shares_n4, frame, most=MOST_COUNTED)
                            result.counts.append(count_found(every, counting))
                    result.boxes += [_renumbered(boxes, number) for boxes in batch.boxes]
                    result.indices += batch.indices.tolist()
                    result.names += [samples.name(n) for n in batch.indices.tolist()]
                if progress is not None:
                    progress(what, len(result.names) + len(result.skipped), len(samples))
    if not result.names:
        first = result.skipped[0] if result.skipped else None
        why = f"; first: {first.name}: {first.reason}" if first else ""
        raise DataError(f"none of {len(samples)} pictures could be read{why}")
    return result


def _counting(
    spec: DetectorSpec, classes: Sequence[str], templates: Sequence[str]
) -> Counting | None:
    """By what these classes are counted; None where nothing was chosen for one of them, or for
    other prompts."""
    if spec.counting is None or tuple(templates) != spec.templates:
        return None
    if any(name not in spec.classes for name in classes):
        return None
    chosen = [spec.counting.thresholds[spec.classes.index(name)] for name in classes]
    return Counting(tuple(chosen), spec.counting.nms)


def numbers_of(answers: PlaceAnswers) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (B, N, Q) and boxes (B, N, 4) of a batch, for :func:`ptft.onnx.boxes.surest_boxes`."""
    return answers.logits.float().cpu().numpy(), answers.boxes.float().cpu().numpy()


def detect_figures(detections: Detections) -> dict[str, Any]:
    """COCO's figures (Lin et al. 2014), computed by faster-coco-eval.

    Returns:
        ``map`` (over IoU 0.50 to 0.95), ``ap50``, ``ap75``, ``map_small``, ``map_medium``,
        ``map_large`` (where such boxes are), ``ar1``, ``ar10``, ``ar100`` as shares of 1;
        ``ap50_by_class``, of the classes that occur, at most 100; the counts ``images``, ``boxes``,
        ``classes`` and ``classes_seen``. Of a detector that counts, see :func:`count_figures`.

    Raises:
        DataError: no box of these classes is there to be found.
    """
    total = sum(int((~(b.crowd | b.difficult)).sum()) for b in detections.boxes)
    if total == 0:
        raise DataError("evaluate: detect: no box of the classes asked for is in this split")
    evaluator = _evaluator(detections)
    stats = evaluator.stats_as_dict
    names = {
        "map": "AP_all",
        "ap50": "AP_50",
        "ap75": "AP_75",
        "map_small": "AP_small",
        "map_medium": "AP_medium",
        "map_large": "AP_large",
        "ar1": "AR_all",
        "ar10": "AR_second",
        "ar100": "AR_third",
    }
    figures: dict[str, Any] = {
        name: float(stats[key]) for name, key in names.items() if float(stats[key]) >= 0
    }
    by_class = _by_class(evaluator, detections.classes)
    figures["ap50_by_class"] = dict(list(by_class.items())[:_BY_CLASS])
    figures["images"] = len(detections.names)
    figures["boxes"] = total
    figures["classes"] = len(detections.classes)
    figures["classes_seen"] = len(by_class)
    return {**figures, **count_figures(detections)}


def count_figures(detections: Detections) -> dict[str, Any]:
    """How far counts are from what is marked.

    Returns:
        ``count_error_by_class``: mean over the pictures that show the class of ``|told - marked| /
        marked``; ``counted_by_class`` and ``marked_by_class``: in all pictures that were annotated
        for it; ``counted_unmarked_by_class``: a picture that shows none, on average. At most 100
        classes; nothing where nothing was counted.
    """
    if not detections.counts:
        return {}
    told_pc, marked_pc = np.stack(detections.counts), marked_counts(detections)
    figures: dict[str, dict[str, float]] = {key: {} for key in _COUNTS}
    for number, name in enumerate(detections.classes):
        told, marked = told_pc[:, number], marked_pc[:, number]
        shown, bare = marked > 0, marked == 0
        values = (
            _mean(np.abs(told - marked)[shown] / marked[shown]),
            int(told[marked >= 0].sum()),
            int(marked[marked >= 0].sum()),
            _mean(told[bare].astype(float)),
        )
        for key, value in zip(_COUNTS, values, strict=True):
            if value is not None and len(figures[key]) < _BY_CLASS:
                figures[key][name] = value
    return {key: values for key, values in figures.items() if values}


def marked_counts(detections: Detections) -> NDArray[np.int64]:
    """How many things are marked of each class in each picture, (P, C); -1 where nobody looked."""
    counts_pc = np.full((len(detections.boxes), len(detections.classes)), -1, np.int64)
    for counts_c, boxes in zip(counts_pc, detections.boxes, strict=True):
        things = boxes.labels[~(boxes.crowd | boxes.difficult)]
        asked = np.arange(len(counts_c)) if boxes.asked is None else boxes.asked
        counts_c[asked] = np.bincount(things, minlength=len(counts_c))[asked]
    return counts_pc


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def precision_curves(detections: Detections) -> dict[str, list[float]]:
    """Precision at 101 recalls from 0 to 1, at an IoU of 0.5, of each class that occurs."""
    precision = _evaluator(detections).eval["precision"][0, :, :, 0, -1]
    return {
        name: [round(float(value), 4) for value in precision[:, number]]
        for number, name in enumerate(detections.classes)
        if (precision[:, number] > -1).all()
    }


def _by_class(evaluator: Any, classes: Sequence[str]) -> dict[str, float]:
    """AP at IoU 0.5 of each class that occurs, of all sizes, at 100 boxes a picture."""
    precision = evaluator.eval["precision"][0, :, :, 0, -1]  # recall thresholds x classes
    found = {}
    for number, name in enumerate(classes):
        column = precision[:, number]
        if (column > -1).any():
            found[name] = float(column[column > -1].mean())
    return found


def _evaluator(detections: Detections) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO()
    truth.dataset = coco_truth(detections)
    truth.createIndex()
    rows = coco_found(detections)
    answers = truth.loadRes(rows) if rows else _nothing(truth)
    evaluator = COCOeval_faster(truth, answers, "bbox", print_function=_silent)
    evaluator.run()
    return evaluator


def coco_truth(detections: Detections) -> dict[str, Any]:
    """What is there, as COCO's JSON has it."""
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for place, (name, boxes) in enumerate(zip(detections.names, detections.boxes, strict=True)):
        width, height = detections.sizes[place]
        images.append({"id": place + 1, "file_name": name, "width": width, "height": height})
        for row in range(len(boxes)):
            left, top, right, bottom = boxes.corners[row].astype(float).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": place + 1,
                    "category_id": int(boxes.labels[row]) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(boxes.crowd[row] or boxes.difficult[row]),
                }
            )
    categories = [{"id": n + 1, "name": name} for n, name in enumerate(detections.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_found(detections: Detections) -> list[dict[str, Any]]:
    """What is found, as COCO's results have it; of classes that a picture was not annotated for
    nothing is told, since nobody can say whether it is right."""
    rows: list[dict[str, Any]] = []
    for place, (found, boxes) in enumerate(zip(detections.found, detections.boxes, strict=True)):
        asked = None if boxes.asked is None else set(boxes.asked.tolist())
        for corner, score, label in zip(found.corners, found.scores, found.labels, strict=True):
            if asked is not None and int(label) not in asked:
                continue
            left, top, right, bottom = corner.astype(float).tolist()
            rows.append(
                {
                    "image_id": place + 1,
                    "category_id": int(label) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(score),
                }
            )
    return rows


def _nothing(truth: Any) -> Any:
    """Results without a box."""
    from faster_coco_eval import COCO

    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _silent(*_: object) -> None:
    """The evaluator's own prints go nowhere."""


def _chosen(item: DetectEvaluation, classes: Sequence[str]) -> list[int]:
    if item.classes is None:
        return list(range(len(classes)))
    for name in item.classes:
        if name not in classes:
            raise DataError(f"evaluate.classes: {name!r}: {suggest(name, classes)}")
    return [classes.index(name) for name in item.classes]


def _renumbered(boxes: Boxes, number: dict[int, int]) -> Boxes:
    """Boxes of the classes that are asked for, by their place among these."""
    kept = boxes[np.array([int(label) in number for label in boxes.labels], bool)]
    labels = np.array([number[int(label)] for label in kept.labels], np.int64)
    asked = kept.asked
    if asked is not None:
        asked = np.array(sorted(number[n] for n in asked.tolist() if n in number), np.int64)
    return Boxes(kept.corners, labels, kept.crowd, kept.difficult, asked)
