"""The card's commands of a detector, beside those that embed."""

from ptft.artifact import ModelInfo
from ptft.pages.markdown import filled, quoted

__all__ = ["detector_onnx", "detector_pipeline", "detector_service"]

_PIPELINE = """\
With transformers 5, as its `{loads}`. A label is read as it stands: put it into the prompt that the
model was trained with.

```python
from PIL import Image, ImageOps
from transformers import pipeline

detector = pipeline("zero-shot-object-detection", ".")
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
for one in detector(picture, candidate_labels=[{texts}], threshold=0.1):
    print(one["label"], one["score"], one["box"])
```
"""

_JAVASCRIPT = """\
In a browser or Node, of `onnx/model.onnx`; JavaScript's own resize differs a little from Python's:

```js
import {{ pipeline }} from "@huggingface/transformers";

const task = "zero-shot-object-detection";
const detector = await pipeline(task, "you/model", {{ dtype: "fp32" }});
console.log(await detector("picture.jpg", {texts}, {{ threshold: 0.1 }}));
```
"""

_ONNX = """\
The boxes, after the lines above; `onnx/detector_model.onnx` knows no texts, so that pictures that
are asked for different things run in one batch:

```python
from ptft.onnx.boxes import place_boxes, place_logits, surest_boxes
from ptft.preprocess import decode_image
from ptft.preprocess.frame import frame_of

detector = onnxruntime.InferenceSession("onnx/detector_model.onnx")
rows = detector.run(None, {{"pixel_values": pixels}})[0][0]
picture = decode_image(open("picture.jpg", "rb").read(), name="", reading=preprocess.reading)
frame = frame_of(picture.size, preprocess.size, preprocess.resize_mode)
found = surest_boxes(place_logits(rows, texts), place_boxes(rows), frame, threshold=0.1)
print(found.corners, found.scores, found.labels)  # pixels of the upright picture
```
"""

_SERVICE = """\
```sh
curl http://localhost:3000/v1/detect -F images=@picture.jpg
curl http://localhost:3000/v1/detect -F images=@picture.jpg --form-string {label}
```
"""


def detector_pipeline(texts: str, loads: str) -> list[str]:
    """The section of transformers, where it loads a detector."""
    return [
        "### transformers\n",
        filled(_PIPELINE, texts=texts, loads=loads),
        "### transformers.js\n",
        filled(_JAVASCRIPT, texts=f"[{texts}]"),
    ]


def detector_onnx() -> str:
    """What goes behind the lines of onnxruntime."""
    return filled(_ONNX)


def detector_service(info: ModelInfo) -> str:
    """What goes behind the lines of the service: its own classes, or a text of the request."""
    name = info.classes[0] if info.classes else "a cat"
    return filled(_SERVICE, label=quoted(f"labels={name}"))
