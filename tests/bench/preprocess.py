"""The pixels and embeddings of JavaScript against Python's, through ``onnx/preprocess.onnx``.

Twenty pictures of many sizes: photographs of groceries, enlarged by their own factor each, and
drawn scenes. Python decodes them, and hands the same bytes to its own way (Pillow, then
onnxruntime) and to Node, which knows nothing but the two ONNX files. The image tower is the
MobileNetV2 of the shared data as it was pretrained. onnxruntime for Node comes from npm into a
cache folder on the first run.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from platformdirs import user_cache_path

from ptft.artifact import FolderFiles
from ptft.data import open_split
from ptft.data.sources.scenes import Scenes
from ptft.export.graph import write_graph
from ptft.export.pixels import write_preprocess
from ptft.export.towers import image_tower
from ptft.model import build_model
from ptft.recipe import ScenesData, load_recipe
from tests.bench._parts import Absent, shared_data

NODE = "onnxruntime-node@1.30.0"
BARS = {
    "smallest cosine": (">=", 0.99999),
    "largest difference of a pixel, of 255": ("<=", 1.01),
}
_SCRIPT = """\
const ort = require(process.argv[2]);
const fs = require("fs");
(async () => {
  const job = JSON.parse(fs.readFileSync(process.argv[3]));
  const preprocess = await ort.InferenceSession.create(job.preprocess);
  const vision = await ort.InferenceSession.create(job.vision);
  for (const picture of job.pictures) {
    const bytes = new Uint8Array(fs.readFileSync(picture.file));
    const image = new ort.Tensor("uint8", bytes, [picture.height, picture.width, 3]);
    const { pixel_values } = await preprocess.run({ image });
    const { image_embeds } = await vision.run({ pixel_values });
    fs.writeFileSync(picture.file + ".pixels", pixel_values.data);
    fs.writeFileSync(picture.file + ".embeds", image_embeds.data);
  }
})();
"""


def install(*, fetch: bool) -> Path:
    """The folder of onnxruntime for Node.

    Raises:
        Absent: it is not there, and is not to be fetched; or there is no npm.
    """
    place = user_cache_path("ptft") / "bench" / NODE.replace("@", "-")
    module = place / "node_modules" / "onnxruntime-node"
    if not module.is_dir():
        if not fetch or shutil.which("npm") is None:
            raise Absent(f"no {NODE} in {place.parent}; a full run takes it from npm")
        place.mkdir(parents=True, exist_ok=True)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        subprocess.run(["npm", "install", "--prefix", place, *options, NODE], check=True)
    return module


def pictures(count: int) -> list[Image.Image]:
    """Half of them photographs, half scenes, from 90 to 1600 pixels wide."""
    recipe = load_recipe("finetune/grocery-probe")
    photos = open_split(recipe.data, "test", seed=0)
    drawn = Scenes(ScenesData(style="shaded", size=512, test=count), "test")
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        image = photos[number].image if number % 2 == 0 else drawn[number].image
        size = (int(rng.integers(90, 1600)), int(rng.integers(90, 1200)))
        found.append(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return found


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    shared_data("grocery", "mobilenetv2")
    module = install(fetch=not smoke)
    recipe = load_recipe("finetune/grocery-probe")
    model = build_model(recipe.model, None, recipe.objective, seed=0).eval()
    preprocess = model.spec.preprocess
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        write_graph(image_tower(model), folder / FolderFiles.VISION_ONNX)
        write_preprocess(preprocess, folder / FolderFiles.PREPROCESS_ONNX)
        images = pictures(2 if smoke else 20)
        job = {
            "preprocess": str(folder / FolderFiles.PREPROCESS_ONNX),
            "vision": str(folder / FolderFiles.VISION_ONNX),
            "pictures": [],
        }
        for number, image in enumerate(images):
            file = folder / f"{number}.raw"
            file.write_bytes(image.tobytes())
            part = {"file": str(file), "height": image.height, "width": image.width}
            job["pictures"].append(part)
        (folder / "job.json").write_text(json.dumps(job))
        (folder / "run.js").write_text(_SCRIPT)
        subprocess.run(["node", folder / "run.js", module, folder / "job.json"], check=True)
        vision = onnxruntime.InferenceSession(folder / FolderFiles.VISION_ONNX)
        units = 255 * np.array(preprocess.std)[:, None, None]
        rows = []
        for number, image in enumerate(images):
            wanted = preprocess(image)
            (ours,) = vision.run(None, {"pixel_values": wanted[None]})
            raw = folder / f"{number}.raw"
            pixels = np.fromfile(f"{raw}.pixels", np.float32).reshape(wanted.shape)
            theirs = np.fromfile(f"{raw}.embeds", np.float32)
            difference = np.abs(pixels - wanted) * units
            ours = ours[0].astype(np.float64)
            cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
            rows.append((image.size, difference.max(), (difference > 0.5).mean(), cosine))
    print(f"{'picture':>10} {'largest':>8} {'differ':>8} {'cosine':>12}")
    for (width, height), largest, share, cosine in rows:
        print(f"{f'{width}x{height}':>10} {largest:8.2f} {share:8.4%} {cosine:12.9f}")
    return {
        "smallest cosine": float(min(row[3] for row in rows)),
        "largest difference of a pixel, of 255": float(max(row[1] for row in rows)),
        "share of pixels that differ": float(np.mean([row[2] for row in rows])),
    }
