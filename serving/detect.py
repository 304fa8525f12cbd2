"""``/v1/detect``: things in pictures, by the model's own classes, by labels, or by an example.

Texts and examples meet a picture's places once both are there; labels are looked at once a picture
has proved readable, as for ``/v1/classify``.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from ptft.errors import SampleError
from ptft.onnx.boxes import FoundBoxes, place_boxes, place_logits, place_query, surest_boxes
from ptft.onnx.counting import MOST_COUNTED, counted_boxes
from ptft.preprocess.frame import Frame
from serving import schema
from serving.admission import Cost
from serving.answers import failure, write
from serving.asked import Asked
from serving.inputs import read_image_lists, too_many
from serving.label_limits import check_labels
from serving.pictures import Picture
from serving.places import Placed, find_places
from serving.refusal import Refusal
from serving.waiting import items_with_queries

__all__ = ["detect"]

_BYTES_A_BOX = 120  # of an answer, beside its label
_S_A_PRODUCT = 2e-10  # of one number of a place with one of a query, on one CPU
_COPIES = 4  # of the logits while the surest are chosen


async def detect(asked: Asked) -> Response:
    """Answer a request."""
    model = asked.encoder.model
    if not model.has_detector:
        raise Refusal(404, "no_detector", f"{model.info.name} tells no boxes; see /v1/model: task")
    (pictures, examples), options = await read_image_lists(
        asked, ("images", "examples"), body=schema.DetectInputs, options=schema.DetectOptions
    )
    labels = options.labels or ([] if examples else model.info.classes)
    templates = options.templates or model.info.templates or ["{}"]
    if not labels and not examples:
        raise Refusal(422, "no_labels", f"{model.info.name} has no classes; send labels")
    if options.count:
        _check_counted(asked, examples, options)
    if labels:
        check_labels(asked, labels, templates)
    too_many(len(pictures) + len(examples), asked.settings)
    places = asked.encoder.cost_of_places([*pictures, *examples])
    asked.ticket.charge(places + _cost_of_answer(asked, len(pictures), labels, examples, options))
    asked.watch()
    placed, queries_qd = await _look(asked, pictures, examples, labels, templates)
    failed = sum(isinstance(one, SampleError) for one in placed)
    asked.metrics.observe_items("image", len(placed) - failed, failed)
    if queries_qd is None:  # no picture could be read, and nothing was asked of the labels
        return _answer(asked, placed, np.zeros((0, 1), np.float32), labels, options)
    seconds = _seconds(asked, len(placed), len(queries_qd))
    return await asked.apart_for(seconds, _answer, asked, placed, queries_qd, labels, options)


async def _look(
    asked: Asked,
    pictures: Sequence[Picture | SampleError],
    examples: Sequence[Picture | SampleError],
    labels: Sequence[str],
    templates: Sequence[str],
) -> tuple[list[Placed], NDArray[np.float32] | None]:
    """The places of each picture, and the queries: labels, then examples; None where no picture can
    be read."""
    readable = asyncio.Event()

    async def queries() -> NDArray[np.float32]:
        await readable.wait()
        found = []
        if labels:
            caller = asked.ticket.caller
            found.append(await asked.encoder.encode_labels(labels, templates, caller))
        for one in await find_places(asked.encoder, asked.ticket, examples):
            if isinstance(one, SampleError):
                raise Refusal(422, "unreadable", str(one))
            found.append(place_query(one[0])[None])
        return np.concatenate(found)

    items = find_places(asked.encoder, asked.ticket, pictures, readable)
    return await items_with_queries(items, queries(), readable)


def _answer(
    asked: Asked,
    placed: Sequence[Placed],
    queries_qd: NDArray[np.float32],
    labels: Sequence[str],
    options: schema.DetectOptions,
) -> Response:
    results: list[dict[str, Any]] = []
    for index, one in enumerate(placed):
        if isinstance(one, SampleError):
            results.append({"index": index, "error": failure(one)})
            continue
        found = _found(asked, one, queries_qd, options)
        width, height = one[1].size
        told: dict[str, Any] = {"boxes": _boxes(found, labels)}
        if options.count:
            counts = np.bincount(found.labels, minlength=len(labels)).tolist()
            told["counts"] = dict(zip(labels, counts, strict=True))
        results.append({"index": index, "width": width, "height": height, **told})
    status = 422 if all(isinstance(one, SampleError) for one in placed) else 200
    return write(asked, "results", results, status)


def _found(
    asked: Asked,
    placed: tuple[NDArray[np.float32], Frame],
    queries_qd: NDArray[np.float32],
    options: schema.DetectOptions,
) -> FoundBoxes:
    """What is told of a picture: what counts, or what the options ask for."""
    model, (rows_nw, frame) = asked.encoder.model, placed
    answers = place_logits(rows_nw, queries_qd), place_boxes(rows_nw), frame
    if options.count:
        assert model.counting is not None  # held before
        return counted_boxes(surest_boxes(*answers, most=MOST_COUNTED), model.counting)
    nms = model.info.nms if options.nms is None else options.nms
    return surest_boxes(*answers, most=options.most, nms=nms, threshold=options.threshold)


def _check_counted(
    asked: Asked, examples: Sequence[Picture | SampleError], options: schema.DetectOptions
) -> None:
    """That the model counts, and is asked for nothing that counting would pass over.

    Raises:
        Refusal: naming the option.
    """
    model = asked.encoder.model
    if model.counting is None:
        why = "its training chose nothing to count by; see objective.count of its recipe"
        raise Refusal(422, "no_count", f"count: {model.info.name}: {why}")
    plain = schema.DetectOptions()
    others = [key for key in type(options).model_fields if key != "count"]
    asked_for = [key for key in others if getattr(options, key) != getattr(plain, key)]
    if examples:
        asked_for.append("examples")
    if asked_for:
        why = "with count, what is told is what training chose; allowed: count without it"
        raise Refusal(422, "invalid", f"{asked_for[0]}: {why}")


def _boxes(found: FoundBoxes, labels: Sequence[str]) -> list[dict[str, Any]]:
    boxes: list[dict[str, Any]] = []
    for corners, score, label in zip(found.corners, found.scores, found.labels, strict=True):
        at = int(label)
        own: dict[str, Any] = {"example": at - len(labels)}
        if at < len(labels):
            own = {"label": labels[at]}
        boxes.append({**own, "score": float(score), "box": corners})
    return boxes


def _cost_of_answer(
    asked: Asked,
    pictures: int,
    labels: Sequence[str],
    examples: Sequence[Picture | SampleError],
    options: schema.DetectOptions,
) -> Cost:
    """What comparing places with queries takes, and the answer: each box names its label."""
    queries = len(labels) + len(examples)
    longest = max(map(len, labels), default=0)
    most = MOST_COUNTED if options.count else options.most
    told = min(most, asked.encoder.count_of_places * queries)
    answer = pictures * told * (longest + _BYTES_A_BOX)
    compared = asked.encoder.count_of_places * queries * 4 * _COPIES
    seconds = _seconds(asked, pictures, queries)
    return Cost(memory=answer + compared, work=seconds, best_work=seconds)


def _seconds(asked: Asked, pictures: int, queries: int) -> float:
    width = asked.encoder.model.info.embed_dim + 100  # beside the product what each number costs
    return pictures * asked.encoder.count_of_places * queries * width * _S_A_PRODUCT
