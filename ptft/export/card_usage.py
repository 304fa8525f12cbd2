"""The card's commands, one section a client; all run inside the folder as they stand."""

from ptft.artifact import FolderFiles, ModelInfo
from ptft.model.spec import ModelSpec

__all__ = ["usage"]

_OPEN_CLIP = """\
```python
import open_clip
import torch
from PIL import Image

model, preprocess = open_clip.create_model_from_pretrained("local-dir:.")
tokenizer = open_clip.get_tokenizer("local-dir:.")
model.eval()
with torch.no_grad():
    image = model.encode_image(preprocess(Image.open("picture.jpg"))[None], normalize=True)
    texts = model.encode_text(tokenizer([{texts}]), normalize=True)
print((model.logit_scale.exp() * image @ texts.T).softmax(dim=-1))
```
"""

_ONNX = """\
`ptft.preprocess` imports neither torch nor open_clip.

```python
import json

import numpy as np
import onnxruntime
from PIL import Image
from ptft.preprocess import ImagePreprocess, TextTokenizer

info = json.load(open("ptft.json", encoding="utf-8"))
preprocess = ImagePreprocess.from_config(info["preprocess"])
tokenizer = TextTokenizer("tokenizer.json", **info["tokenizer"])
vision = onnxruntime.InferenceSession("onnx/vision_model.onnx")
text = onnxruntime.InferenceSession("onnx/text_model.onnx")

pixels = preprocess(Image.open("picture.jpg").convert("RGB"))[None]
image = vision.run(None, {{"pixel_values": pixels}})[0]
texts = text.run(None, {{"input_ids": tokenizer([{texts}])}})[0]
image /= np.linalg.norm(image, axis=1, keepdims=True)
texts /= np.linalg.norm(texts, axis=1, keepdims=True)
logits = info["logit_scale"] * image @ texts.T
print(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
```
"""

_HEAD = """\
The classifier, after the lines above:

```python
from safetensors.numpy import load_file

head = load_file("head.safetensors")
{read}logits = info["logit_scale"] * {inputs} @ head["weight"].T + head["bias"]
if "keys" in head:  # the cache of a Tip-Adapter
    near = np.exp(-head["beta"] * (1 - image @ head["keys"].T))
    logits += head["alpha"] * near @ np.eye(len(info["classes"]), dtype="f4")[head["labels"]]
print(info["classes"][int(logits[0].argmax())])
```
"""

_INPUTS = {"image": "image", "text": "texts", "both": "both"}
_READ = {
    "image": "",
    "text": "",
    "both": "both = np.concatenate([image, texts[:1]], axis=1)  # a picture and its text\n",
}

_PTFT = """\
```sh
ptft evaluate . --recipe recipe.yaml
```

As the start of a recipe of your own: `init: {{from: <this folder or its Hub id>}}`.
"""

_SERVICE = """\
From a checkout of ptft, with this folder's path in `PTFT_MODEL`:

```sh
bentoml serve serving.service:Ptft
```

```sh
curl http://localhost:3000/v1/embed/text -H 'Content-Type: application/json' \\
  -d '{{"texts": [{texts}]}}'
curl http://localhost:3000/v1/embed/image -F images=@picture.jpg
curl http://localhost:3000/v1/classify {classify}
```
"""


def usage(info: ModelInfo, spec: ModelSpec, files: list[str]) -> str:
    """Commands for every client that can load the folder, as Markdown.

    Args:
        files: names of the files in the folder: what is absent is not explained.
    """
    texts = ", ".join(f'"{text}"' for text in _texts(info))
    parts = ["In this folder, with a picture of yours as `picture.jpg`.\n"]
    if FolderFiles.OPEN_CLIP_CONFIG in files:
        parts += ["### open_clip\n", _OPEN_CLIP.format(texts=texts)]
    parts += ["### onnxruntime\n", _ONNX.format(texts=texts)]
    if FolderFiles.HEAD in files:
        parts.append(_HEAD.format(read=_READ[info.reads], inputs=_INPUTS[info.reads]))
    if FolderFiles.RECIPE in files:
        parts += ["### ptft\n", _PTFT.format()]
    # A classifier answers with its own classes, any other model has to be told some.
    named = [] if FolderFiles.HEAD in files else _texts(info)
    labels = "".join(f' -F labels="{text}"' for text in named)
    text = f' -F texts="{_texts(info)[0]}"'
    classify = {
        "image": f"-F images=@picture.jpg{labels}",
        "text": text.strip(),
        "both": f"-F images=@picture.jpg{text}",
    }[info.reads]
    parts += ["### The service\n", _SERVICE.format(texts=texts, classify=classify)]
    return "\n".join(parts)


def _texts(info: ModelInfo) -> list[str]:
    """Two texts of the kind that the model knows."""
    if len(info.classes) > 1:
        template = info.templates[0] if info.templates else "{}"
        names = [template.replace("{}", name) for name in info.classes[:2]]
    else:
        names = ["a photo of a cat", "a photo of a dog"]
    return [name.replace("\\", "").replace('"', "").replace("'", "’") for name in names]
