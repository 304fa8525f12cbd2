"""The card's commands, one section a client; all run inside the folder as they stand."""

from typing import Any

from ptft.artifact import FolderFiles, ModelInfo
from ptft.export.card_boxes import detector_onnx, detector_pipeline
from ptft.export.card_pictures import pictures_onnx, without_texts
from ptft.export.card_service import service
from ptft.export.quality import offers_texts
from ptft.export.router_layout import ROUTER
from ptft.model.spec import ModelSpec
from ptft.pages.markdown import code, filled, literal
from ptft.preprocess.clip_vocabulary import END_OF_TEXT
from ptft.recipe.publication import public_place

__all__ = ["usage"]

_OPEN_CLIP = """\
```python
import open_clip
import torch
from PIL import Image, ImageOps

model, preprocess = open_clip.create_model_from_pretrained("local-dir:.")
tokenizer = open_clip.get_tokenizer("local-dir:.")
model.eval()
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
with torch.no_grad():
    image = model.encode_image(preprocess(picture)[None], normalize=True)
    texts = model.encode_text(tokenizer([{texts}]), normalize=True)
print((model.logit_scale.exp() * image @ texts.T).softmax(dim=-1))
```
"""

_TRANSFORMERS = """\
With transformers {versions}, as its `{loads}`. Pillow resizes the pictures here, as for open_clip;
torchvision, which transformers 5 takes unless told, makes them a little different. Beside a torch
that the installed torchvision was not built for (a CPU's, say) these imports fail ("Could not
import module"), as do those of the other libraries here that import torchvision;
`prepare_torchvision()` of `ptft.compat`, called before them, mends that.

```python
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

model = AutoModel.from_pretrained(".").eval()
processor = AutoImageProcessor.from_pretrained(".", backend="pil")
tokenizer = AutoTokenizer.from_pretrained(".")
texts = tokenizer([{texts}], padding="max_length", truncation=True, return_tensors="pt")
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
picture = processor(picture, return_tensors="pt")
with torch.no_grad():
    outputs = model(**texts, **picture)  # its image_embeds and text_embeds are the embeddings
print(outputs.logits_per_image.softmax(dim=-1))
```
"""

_SENTENCE_TRANSFORMERS = """\
```python
from PIL import Image, ImageOps
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")
image = model.encode([ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")])
texts = model.encode([{texts}])
print(model.similarity(image, texts))
```
"""

_TEXTS = """\
`tokenizer.json` cleans texts as open_clip does, whatever library reads it: entities of HTML 4
(`&eacute;`, `&amp;`) are resolved, typographic quotes become plain{more}. Other entities
(`&#233;`, `&lowbar;`) and bytes that were decoded wrongly are mended by open_clip, ptft and the
service alone; with other libraries `html.unescape(ftfy.fix_text(text))` does it before.{marks}
"""

_MARKS = """
`<start_of_text>` and `<end_of_text>` in a text are the tokens themselves, everywhere{stops}."""

_ROUTER = """\
With sentence-transformers 5.7 or 6.2, by its own modules: `modules.json` names a router to the two
towers of `sentence-transformers/`.

"""

_TIMM = """\
The image tower with its projection, as timm's `{loads}`; from the Hub
`timm.create_model("hf_hub:org/name", pretrained=True)`.

```python
import timm
import torch
from PIL import Image, ImageOps

weights = {{"source": "", "file": "open_clip_model.safetensors"}}
tower = timm.create_model("local-dir:.", pretrained=True, pretrained_cfg_overlay=weights).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=tower))
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
with torch.no_grad():
    image = tower(transform(picture)[None])
print(torch.nn.functional.normalize(image, dim=-1))
```
"""

_OPTIMUM = """\
```python
from optimum.onnxruntime import ORTModelForCustomTasks
from transformers import AutoTokenizer

text = ORTModelForCustomTasks.from_pretrained(".", subfolder="onnx", file_name="text_model.onnx")
tokenizer = AutoTokenizer.from_pretrained(".")
tokens = tokenizer([{texts}], padding="max_length", truncation=True, return_tensors="pt")
print(text(**tokens)["text_embeds"])
```
"""

_JAVASCRIPT = """\
With this folder as {folder} beside the script; from the Hub, its id instead. A text of more
than {length} tokens loses its end mark there: shorten it before.

```js
import {{
  AutoProcessor, AutoTokenizer, CLIPTextModelWithProjection, CLIPVisionModelWithProjection,
  RawImage, env, matmul, softmax,
}} from "@huggingface/transformers";

env.localModelPath = "models/";
const folder = {name}, options = {{ dtype: "fp32" }};
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const processor = await AutoProcessor.from_pretrained(folder);
const text = await CLIPTextModelWithProjection.from_pretrained(folder, options);
const vision = await CLIPVisionModelWithProjection.from_pretrained(folder, options);
const {{ text_embeds }} = await text(
  tokenizer([{texts}], {{ padding: "max_length", truncation: true }}),
);
const {{ image_embeds }} = await vision(await processor(await RawImage.read("picture.jpg")));
const cosines = await matmul(image_embeds.normalize(), text_embeds.normalize().transpose(1, 0));
console.log(softmax(Array.from(cosines.data, (cosine) => cosine * {scale})));
```
"""

_ADAPTER = """\
`adapter/` holds what learned alone. It goes on the weights that it was trained on, and refuses
others by their digest:

```python
from ptft.model import load_adapter, load_model, merge

model = merge(load_adapter(load_model({base}), "adapter"))
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

pixels = preprocess(Image.open("picture.jpg"))[None]  # upright RGB of 8 bits first
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
{said}
```
"""
_ONE = 'print(info["classes"][int(logits[0].argmax())])'
_EACH = """\
likely = 1 / (1 + np.exp(-logits[0].astype("f8")))
print([one for one, p, t in zip(info["classes"], likely, info["thresholds"]) if p >= t])"""

_UPRIGHT = 'ImageOps.exif_transpose(Image.open("picture.jpg"))'

_INPUTS = {"image": "image", "text": "texts", "both": "both"}
_BOTH = "both = np.concatenate([image, texts[:1]], axis=1)  # a picture and its text\n"

_PTFT = """\
```sh
ptft evaluate . --recipe recipe.yaml
```

As the start of a recipe of your own: `init: {{from: <this folder or its Hub id>}}`.
"""


def usage(info: ModelInfo, spec: ModelSpec, files: list[str]) -> str:
    """Commands for every client that can load the folder, as Markdown.

    Args:
        files: names of the files in the folder: what is absent is not explained.
    """
    texts = ", ".join(map(literal, _texts(info)))
    reading = spec.preprocess.reading
    parts = [
        "In this folder, with a picture of yours as `picture.jpg`. The model was made for "
        f"{reading.words}.\n",
        *_reading(info, spec),
    ]
    asked = offers_texts(info, spec)
    if FolderFiles.OPEN_CLIP_CONFIG in files and asked:
        parts += ["### open_clip\n", filled(_OPEN_CLIP, texts=texts)]
    parts += _libraries(info, spec, files, texts)
    served = FolderFiles.VISION_ONNX in files
    if served:
        parts += ["### onnxruntime\n", filled(_ONNX, texts=texts) if asked else pictures_onnx()]
    if served and info.task == "detect":
        parts.append(detector_onnx())
    if FolderFiles.HEAD in files:
        said = _EACH if info.thresholds else _ONE
        read, inputs = _BOTH if info.reads == "both" else "", _INPUTS[info.reads]
        parts.append(filled(_HEAD, read=read, inputs=inputs, said=said))
    if FolderFiles.RECIPE in files:
        parts += ["### ptft\n", filled(_PTFT)]
    base = public_place(spec.base or "the base")
    if any(name.startswith(f"{FolderFiles.ADAPTER}/") for name in files):
        parts.append(filled(_ADAPTER, base=literal(base)))
    if served:
        parts += service(info, _texts(info), asked=asked)
    commands = "\n".join(parts)
    if not reading.orient:  # of a model that saw pictures lie as they are stored
        commands = commands.replace(_UPRIGHT, 'Image.open("picture.jpg")')
        commands = commands.replace("import Image, ImageOps", "import Image")
    return commands


def _reading(info: ModelInfo, spec: ModelSpec) -> list[str]:
    """What the libraries that read ``tokenizer.json`` do to a text, and what they do not."""
    readers = ("transformers", "sentence-transformers")
    cleaned = {
        "canonicalize": ", ASCII punctuation is dropped and letters are lower-cased",
        "clip": ", letters are lower-cased",
        "whitespace": "",
    }
    clean = spec.tokenizer.clean
    if clean not in cleaned or not any(info.clients.get(name, {}).get("loads") for name in readers):
        return []
    marks = ""
    if spec.tokenizer.may_hold(END_OF_TEXT) and spec.tokenizer.kind == "clip":
        stops = ", and what follows an end is not read" if spec.text_stops else ""
        marks = _MARKS.format(stops=stops)
    return [_TEXTS.format(more=cleaned[clean], marks=marks)]


def _libraries(info: ModelInfo, spec: ModelSpec, files: list[str], texts: str) -> list[str]:
    """The sections of what loads by ``config.json``, tokenizer and image processor."""
    transformers = info.clients.get("transformers", {}).get("loads")
    timm = info.clients.get("timm", {}).get("loads")
    parts: list[str] = []
    embeds = transformers is not None and FolderFiles.PREPROCESSOR in files
    if not (asked := offers_texts(info, spec)):
        embeds = False
        parts += ["### Other libraries\n", without_texts()]
    if info.task == "detect" and transformers is not None:
        embeds = False
        parts += detector_pipeline(texts, transformers)
    if embeds:
        # 4.57 hands the text model of a dual encoder what CLIP's does not take
        old = transformers != "VisionTextDualEncoderModel" or "hf_model_name" in _text_cfg(spec)
        versions = "4.57 or 5" if old else "5"
        usage = filled(_TRANSFORMERS, texts=texts, loads=transformers, versions=versions)
        parts += ["### transformers\n", usage]
    if asked:
        parts += _sentence_transformers(info, texts)
    if timm is not None:
        parts += ["### timm\n", filled(_TIMM, loads=timm)]
    if embeds and FolderFiles.VISION_ONNX in files:
        usage = filled(
            _JAVASCRIPT,
            folder=code(f"models/{info.name}"),
            name=literal(info.name),
            texts=texts,
            scale=info.logit_scale,
            length=info.context_length,
        )
        parts += ["### transformers.js\n", usage]
        parts += ["### optimum-onnx\n", filled(_OPTIMUM, texts=texts)]
    return parts


def _sentence_transformers(info: ModelInfo, texts: str) -> list[str]:
    loads = info.clients.get("sentence-transformers", {}).get("loads")
    if loads is None:
        return []
    router = _ROUTER if loads == ROUTER else ""
    return ["### sentence-transformers\n", router + filled(_SENTENCE_TRANSFORMERS, texts=texts)]


def _text_cfg(spec: ModelSpec) -> dict[str, Any]:
    return dict(spec.config.get("text_cfg", {}))


def _texts(info: ModelInfo) -> list[str]:
    """Two texts of the kind that the model knows."""
    if len(info.classes) < 2:
        return ["a photo of a cat", "a photo of a dog"]
    template = info.templates[0] if info.templates else "{}"
    return [template.replace("{}", name) for name in info.classes[:2]]
