"""A running service: the model that it says it serves, and its answers to the golden inputs.

Only the address that the user names is asked, and no redirect is followed. Pictures and texts go
one at a time, so that no cap of a service is in the way, and every answer's digest counts: behind
one address there may be replicas of several versions.
"""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptft.artifact import GoldenKeys, read_model_info
from ptft.errors import ArtifactError, PtftError
from ptft.onnx.boxes import sigmoid
from ptft.onnx.golden import TOLERANCE, Golden, allowed, differences, read_golden
from ptft.verify.answers import judge
from ptft.verify.link import Artefact, Link, broken, holds, unchecked

if TYPE_CHECKING:
    import httpx2

__all__ = ["check_service"]

_BOXES = 100  # of a picture that are compared
_TIMEOUT_S = 60.0  # more than a service's own default of 30 s to an answer


def check_service(url: str, model: Artefact) -> list[Link]:
    """Hold a service against the model before it."""
    import httpx2

    with httpx2.Client(base_url=url.rstrip("/"), timeout=_TIMEOUT_S) as client:
        try:
            about = _ask(client, "GET", "/v1/model")
            digest = str(about.get("digest"))
            if digest != model.digest:
                what = model.digest or "unread"
                return [broken("service", url, f"serves {digest}; {model.target} is {what}")]
            links = [holds("service", url, f"serves {digest}, as {model.target}")]
            if model.folder is None:
                why = "a digest alone has no golden embeddings; name a folder"
                return [*links, unchecked("golden service", url, why)]
            precision = str(about.get("precision"))
            if precision not in TOLERANCE:
                raise ArtifactError(f"/v1/model: unknown precision {precision!r}")
            golden = read_golden(model.folder)
            texts = about.get("texts") != "refused"
            return [*links, _compare(client, url, model, golden, precision, texts=texts)]
        except PtftError as error:
            return [broken("service", url, error)]
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = f"cannot be reached ({type(error).__name__}: {error})"
            return [broken("service", url, why)]


def _compare(
    client: "httpx2.Client",
    url: str,
    model: Artefact,
    golden: Golden,
    precision: str,
    *,
    texts: bool,
) -> Link:
    """Post the golden inputs.

    Args:
        texts: whether the service embeds them for others; else its own check stands for them,
            which runs the golden texts through its queues.
    """
    assert model.folder is not None

    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = _ask(client, "POST", path, **body)
        if answer.get("digest") != model.digest:
            raise ArtifactError(f"{path}: an answer came from {answer.get('digest')}")
        return dict(answer["results"][0])

    pictures = [{"images": ("golden.png", _png(pixels))} for pixels in golden.pixels]
    said_texts = [{"texts": [text]} for text in golden.texts]
    try:
        image_nd = _rows(post("/v1/embed/image", files=one)["embedding"] for one in pictures)
        text_td = None
        if texts:
            answers = (post("/v1/embed/text", json=one) for one in said_texts)
            text_td = _rows(one["embedding"] for one in answers)
        else:
            _check_own(client, model)
        class_nc = None
        if golden.class_logits is not None:
            info = read_model_info(model.folder)
            labels, top_k = info.classes, len(info.classes)
            if info.reads == "text":
                asked = [post("/v1/classify", json={**one, "top_k": top_k}) for one in said_texts]
            else:
                said = said_texts if info.reads == "both" else [{}] * len(pictures)
                asked = [
                    post("/v1/classify", files=one, data={"top_k": str(top_k), **text})
                    for one, text in zip(pictures, said, strict=False)  # as many as both have
                ]
            if golden.class_thresholds is not None:
                golden.check_thresholds(info.thresholds)
                said_labels = [[labels.index(name) for name in one["labels"]] for one in asked]
                golden.check_told(said_labels, precision)
            rows = [{c["label"]: c["probability"] for c in one["classes"]} for one in asked]
            class_nc = _rows([one[label] for label in labels] for one in rows)
        boxes = {}
        if golden.detect_logits is not None:
            boxes = _held_boxes(golden, precision, post, pictures)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f"an answer of another form: {type(error).__name__} {error}") from None
    found = {**differences(golden, image_nd, text_td, class_nc), **boxes}
    return judge(f"golden service {precision}", url, found, precision, golden)


def _check_own(client: "httpx2.Client", model: Artefact) -> None:
    """The service's own check of its golden inputs.

    Raises:
        ArtifactError: it does not hold, or is of another model.
    """
    found = _ask(client, "GET", "/v1/golden")
    if found.get("digest") != model.digest or found.get("holds") is not True:
        raise ArtifactError(f"/v1/golden: {found.get('checks')}, of {found.get('digest')}")


def _held_boxes(
    golden: Golden, precision: str, post: Any, pictures: list[dict[str, Any]]
) -> dict[str, float]:
    """How far the boxes that a service tells of the golden pictures, asked for the golden texts,
    lie from the recorded ones: of each box the place that its score and its text are of."""
    assert golden.detect_logits is not None and golden.detect_boxes is not None
    texts = list(dict.fromkeys(text for text in golden.texts if text))
    rows = [list(golden.texts).index(text) for text in texts]
    form = {"labels": texts, "templates": ["{}"], "threshold": "0", "most": str(_BOXES)}
    form["nms"] = "1"  # a model may have one of its own
    scores, corners = 0.0, 0.0
    for picture, logits_pt, shares_p4 in zip(
        pictures, golden.detect_logits, golden.detect_boxes, strict=True
    ):
        answer = post("/v1/detect", files=picture, data=form)
        size = np.array([answer["width"], answer["height"]] * 2, np.float32)
        wanted = sigmoid(logits_pt[:, rows])
        surest = np.sort(wanted.reshape(-1))[::-1]
        half = shares_p4[:, 2:] / 2
        places = np.concatenate([shares_p4[:, :2] - half, shares_p4[:, :2] + half], axis=1)
        places = np.clip(places, 0, 1)
        told, count = answer["boxes"], min(_BOXES, wanted.size)
        if len(told) != count:
            raise ArtifactError(f"/v1/detect: {len(told)} boxes; wanted: {count}")
        for one, best in zip(told, surest, strict=False):
            scores = max(scores, abs(one["score"] - float(best)))
            column = wanted[:, texts.index(one["label"])]
            near = np.abs(column - one["score"]) <= allowed(GoldenKeys.DETECT_LOGITS, precision)
            apart = np.abs(places[near] - np.array(one["box"], np.float32) / size).max(axis=1)
            corners = max(corners, float(apart.min(initial=1.0)))
    return {GoldenKeys.DETECT_LOGITS: scores, GoldenKeys.DETECT_BOXES: corners}


def _ask(client: "httpx2.Client", method: str, path: str, **body: Any) -> dict[str, Any]:
    """A JSON object that the service answers.

    Raises:
        ArtifactError: it answers something else.
    """
    response = client.request(method, path, **body)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code != 200 or not isinstance(answer, dict):
        said = " ".join(response.text.split())[:200]
        raise ArtifactError(f"{method} {path}: status {response.status_code}: {said}")
    return answer


def _rows(rows: Iterable[Any]) -> NDArray[np.float32]:
    return np.array(list(rows), np.float32)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
