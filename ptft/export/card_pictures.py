"""The card's commands of a model that is not to be asked by texts: pictures alone."""

from ptft.pages.markdown import filled

__all__ = ["pictures_onnx", "pictures_service", "without_texts"]

_WITHOUT = """\
open_clip, transformers and sentence-transformers load this folder too, and embed its pictures.
Their zero-shot pipelines hold texts against pictures, which this model never learned: what they
answer is worth no more than what is said above.
"""

_ONNX = """\
`ptft.preprocess` imports neither torch nor open_clip.

```python
import json

import numpy as np
import onnxruntime
from PIL import Image
from ptft.preprocess import ImagePreprocess

info = json.load(open("ptft.json", encoding="utf-8"))
preprocess = ImagePreprocess.from_config(info["preprocess"])
vision = onnxruntime.InferenceSession("onnx/vision_model.onnx")

pixels = preprocess(Image.open("picture.jpg"))[None]  # upright RGB of 8 bits first
image = vision.run(None, {{"pixel_values": pixels}})[0]
image /= np.linalg.norm(image, axis=1, keepdims=True)
```
"""

_SERVICE = """\
From a checkout of ptft, with this folder's path in `PTFT_MODEL`; where class names find too little,
texts and labels are refused:

```sh
bentoml serve serving.service:Ptft
```

```sh
curl http://localhost:3000/v1/embed/image -F images=@picture.jpg
{classify}```
"""


def without_texts() -> str:
    """What is said in place of the libraries' sections."""
    return filled(_WITHOUT)


def pictures_onnx() -> str:
    """The section of onnxruntime, before the classifier's lines."""
    return filled(_ONNX)


def pictures_service(*, classify: bool) -> str:
    """The section of the service.

    Args:
        classify: whether it has classes of its own.
    """
    asked = "curl http://localhost:3000/v1/classify -F images=@picture.jpg\n" * classify
    return filled(_SERVICE, classify=asked)
