"""The exported folder against the model it came from, for each client that loads it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from ptft.artifact import (
    PRECISIONS,
    FolderFiles,
    GoldenKeys,
    RunFiles,
    read_json,
    read_model_info,
    tower_file,
    verify_files,
)
from ptft.compat import import_open_clip
from ptft.errors import DigestError, ExportError, ParityError
from ptft.export import export_model, towers
from ptft.export import folder as folder_module
from ptft.export.parity import measure_parity
from ptft.model import load_model
from ptft.model.store import OWN_WEIGHTS
from ptft.onnx.processor import saturation_note
from ptft.preprocess import ImagePreprocess, TextTokenizer
from ptft.recipe import load_recipe, recipe_digest
from tests.support.exported import NATIVE, Exported, installed, python_blocks
from tests.support.exported_once import TEXTS, exported, native, same_towers, unit

__all__ = ["exported", "native", "same_towers"]  # fixtures


def test_the_folder_is_whole_and_verifies(exported: Exported) -> None:
    info = read_model_info(exported.folder)
    assert info == exported.info
    for name, client in info.clients.items():
        assert set(client) in ({"loads"}, {"reason"}), name
    in_transformers = {"classify": "CLIPModel", "padded": "VisionTextDualEncoderModel"}
    assert info.clients["transformers"].get("loads") == in_transformers.get(exported.kind)
    verify_files(exported.folder, info.files)
    on_disk = {
        path.relative_to(exported.folder).as_posix()
        for path in exported.folder.rglob("*")
        if path.is_file()
    }
    assert on_disk - set(info.files) == {FolderFiles.INFO, FolderFiles.CARD}
    assert (FolderFiles.OPEN_CLIP_CONFIG in on_disk) is (exported.kind != "padded")
    assert (FolderFiles.HEAD in on_disk) is (exported.kind == NATIVE)
    assert (OWN_WEIGHTS in on_disk) is (exported.kind == "padded")
    assert [p.name for p in exported.folder.parent.iterdir()] == ["model"], "nothing left beside"


def test_lineage(exported: Exported) -> None:
    info, run = exported.info, exported.run
    recipe = load_recipe(run / RunFiles.RECIPE)
    assert info.recipe_digest == recipe_digest(recipe)
    published = load_recipe(exported.folder / FolderFiles.RECIPE)
    assert recipe_digest(published) == info.published_recipe != info.recipe_digest
    text = (exported.folder / FolderFiles.RECIPE).read_text()
    assert "train: birds-{000..003}.tar" in text and "secret" not in text and str(run) not in text
    again = load_model(exported.folder)
    state = exported.model.state_dict()
    assert set(state) == set(again.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())


def test_onnx_is_the_model_at_any_batch_and_length(exported: Exported) -> None:
    """Read with nothing but ptft.json, the tokenizer file and onnxruntime."""
    model, folder, info = exported.model, exported.folder, exported.info
    preprocess = ImagePreprocess.from_config(info.preprocess)
    tokenizer = TextTokenizer(folder / FolderFiles.TOKENIZER, **info.tokenizer)
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (50, 41, 3), np.uint8)
    ).resize((100, 90))
    pixels = np.stack([preprocess(picture), preprocess(picture.transpose(0))])
    vision = onnxruntime.InferenceSession(folder / FolderFiles.VISION_ONNX)
    text = onnxruntime.InferenceSession(folder / FolderFiles.TEXT_ONNX)
    assert [value.name for value in vision.get_inputs()] == ["pixel_values"]
    assert [value.name for value in text.get_outputs()] == ["text_embeds"]
    with torch.no_grad():
        for batch in (pixels, np.repeat(pixels, 2, axis=0)):
            expected = model.encode_image(torch.from_numpy(batch)).numpy()
            found = vision.run(["image_embeds"], {"pixel_values": batch})[0]
            assert np.abs(unit(found) - unit(expected)).max() < 1e-5
        tokens = tokenizer(TEXTS)
        assert np.array_equal(tokens, model.spec.tokenizer(TEXTS))
        expected = model.encode_text(torch.from_numpy(tokens)).numpy()
        for rows in ([0], [0, 1], [0, 1, 2]):
            ids = tokenizer.trim(tokens[rows])
            found = text.run(["text_embeds"], {"input_ids": ids})[0]
            assert np.abs(unit(found) - unit(expected[rows])).max() < 1e-5
    length = onnx.load(folder / FolderFiles.TEXT_ONNX).graph.input[0].type.tensor_type.shape.dim[1]
    assert bool(length.dim_param) is model.spec.text_trimmable
    assert model.spec.text_trimmable is (exported.kind != "tiny-siglip")


def test_open_clip_loads_it(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    if exported.kind == "padded":
        assert "open_clip cannot load it" in (exported.folder / FolderFiles.CARD).read_text()
        assert "pad_type" in (exported.folder / FolderFiles.CARD).read_text()
        return
    open_clip = import_open_clip()
    if exported.kind == "hf":  # its text tower came from a folder, of which nothing must remain
        assert "working directory" in (exported.folder / FolderFiles.CARD).read_text()
        (exported.run.parent / "text-tower").rename(exported.run.parent / "gone")
        monkeypatch.chdir(exported.folder)
    theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{exported.folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{exported.folder}")
    theirs.eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8))
    ours = exported.model
    with torch.no_grad():
        pixels = preprocess(picture)[None]
        assert torch.equal(pixels[0], torch.from_numpy(ours.spec.preprocess(picture)))
        assert torch.equal(theirs.encode_image(pixels), ours.encode_image(pixels))
        tokens = tokenizer(TEXTS)
        assert torch.equal(tokens, torch.from_numpy(ours.spec.tokenizer(TEXTS)))
        difference = theirs.encode_text(tokens) - ours.encode_text(tokens)
    assert difference.abs().max() < 1e-6
    assert torch.equal(theirs.logit_scale.reshape(1), ours.logit_scale)


def test_golden_embeddings_are_the_checkpoints(exported: Exported) -> None:
    golden = load_file(exported.folder / FolderFiles.GOLDEN)
    model = exported.model
    pixels = model.spec.preprocess.normalise(golden[GoldenKeys.PIXELS])
    with torch.no_grad():
        images = model.encode_image(torch.from_numpy(pixels)).numpy()
        texts = model.encode_text(torch.from_numpy(golden[GoldenKeys.TOKENS])).numpy()
    assert np.abs(images - golden[GoldenKeys.IMAGE_EMBEDS]).max() < 1e-5
    assert np.abs(texts - golden[GoldenKeys.TEXT_EMBEDS]).max() < 1e-5
    assert len(np.unique(images.round(4), axis=0)) == len(images), "the pictures differ"
    if exported.kind != NATIVE:
        assert GoldenKeys.CLASS_LOGITS not in golden
        return
    head = load_tensors(exported.folder / FolderFiles.HEAD)
    units = F.normalize(torch.from_numpy(images))
    logits = exported.info.logit_scale * units @ head["weight"].T + head["bias"]
    near = torch.exp(-head["beta"] * (1 - units @ head["keys"].T))
    logits += head["alpha"] * near @ torch.eye(3)[head["labels"]]
    difference = logits.numpy() - golden[GoldenKeys.CLASS_LOGITS]
    assert np.abs(difference).max() < 1e-4
    assert exported.info.classes == ["red", "it's blue", "green"]
    assert exported.info.templates == ["a {} thing"]
    assert exported.info.task == "classify"


def test_the_card_says_what_metrics_json_says(exported: Exported) -> None:
    card = (exported.folder / FolderFiles.CARD).read_text(encoding="utf-8")
    metrics = read_json(exported.folder / FolderFiles.METRICS)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines()]
    measured = {(row[0], row[1]): row[2] for row in rows if len(row) == 3}
    expected = {"i2t_recall@1": 0.4321987, "images": 256, "skipped": 1}
    assert metrics["evaluation"]["retrieval"] == expected
    assert measured["retrieval", "i2t_recall@1"] == "0.4322"
    assert measured["retrieval", "images"] == "256"
    loads = [name for name, client in exported.info.clients.items() if "loads" in client]
    assert not [name for name in loads if f"\n### {name}\n" not in card]
    files = {row[0]: row for row in rows if len(row) == 6}
    both = (FolderFiles.TEXT_ONNX, FolderFiles.VISION_ONNX)
    every = {tower_file(name, p) for name in both for p in PRECISIONS}
    assert set(metrics["parity"]) == every - set(metrics["left_out"])
    if not saturation_note("int8"):  # 8 bits are too few for random batch norms
        assert set(metrics["left_out"]) <= {"onnx/vision_model_quantized.onnx"}
        assert not metrics["left_out"] or exported.kind in ("hf", "padded")
    for name, why in metrics["left_out"].items():
        assert f"`{name}` is left out: {why}." in card and not (exported.folder / name).exists()
    assert metrics["not_measured"] == "the recipe names no evaluation"
    assert metrics["not_measured"] in card
    for name, figures in metrics["parity"].items():
        assert files[name][2] == f"{figures['max_abs']:.2e}"
        assert files[name][4] == "not measured"
        if name in both:
            assert figures["max_abs"] < 1e-5
        assert figures["bytes"] == (exported.folder / name).stat().st_size
        assert len({shape.split("x")[0] for shape in figures["shapes"]}) == 3


def test_nothing_in_the_folder_names_this_machine(exported: Exported) -> None:
    here = [str(Path.cwd()), str(Path(sys.prefix)), str(exported.run.parent), "/data/secret"]
    for path in exported.folder.rglob("*"):
        if path.is_file() and path.name != FolderFiles.RECIPE:
            data = path.read_bytes()
            found = [place for place in here if place.encode() in data]
            assert not found, f"{path.name} holds {found}"
    for path in (exported.folder / "onnx").glob("*.onnx"):
        proto = onnx.load(path)
        assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


def test_a_second_export_has_the_same_digest(native: Exported, tmp_path: Path) -> None:
    """By another process, and from the folder itself, which holds all that the run did."""
    out = tmp_path / "again"
    script = "import sys; from ptft.export import export_model; export_model(*sys.argv[1:])"
    command = [sys.executable, "-c", script, native.folder, out]
    subprocess.run(command, check=True, capture_output=True)
    again = read_model_info(out)
    assert again.files == native.info.files
    assert again.digest == native.info.digest
    assert (again.name, again.weights_digest) == ("tiny-run", native.info.weights_digest)
    assert again.recipe_digest == native.info.recipe_digest


def test_the_cards_commands_run(native: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(native.folder, folder)
    noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)
    Image.fromarray(noise).save(folder / "picture.jpg")
    said = {}
    for name, code in python_blocks(
        (folder / FolderFiles.CARD).read_text(encoding="utf-8")
    ).items():
        if name in ("sentence-transformers", "optimum-onnx") and not installed(name):
            continue  # neither is needed by ptft; tests/bench has an environment for each client
        prelude = "from ptft.compat import prepare_torchvision; prepare_torchvision()\n"
        done = subprocess.run(
            [sys.executable, "-c", prelude + code], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert {"open_clip", "transformers", "timm", "onnxruntime"} <= set(said)
    answers = {
        name: [float(number) for number in re.findall(r"-?\d\.\d+(?:e-\d+)?", text)]
        for name, text in said.items()
    }
    assert answers["transformers"] == pytest.approx(answers["open_clip"], abs=1e-4)
    assert answers["onnxruntime"][:2] == pytest.approx(answers["open_clip"], abs=1e-4)
    with torch.no_grad():
        pixels = native.model.spec.preprocess(Image.open(folder / "picture.jpg"))[None]
        best = int(native.model.classify(torch.from_numpy(pixels)).argmax())
        image = native.model(torch.from_numpy(pixels))[0]
    assert answers["timm"] == pytest.approx(image[0].tolist(), abs=1e-4)
    assert said["onnxruntime"].split("]]")[-1].strip() == native.info.classes[best]


@pytest.mark.usefixtures("same_towers")
def test_what_people_wrote_stays(native: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(native.folder, folder)
    card = folder / FolderFiles.CARD
    text = card.read_text(encoding="utf-8")
    text = re.sub(
        r"(<!-- keep notes -->\n).*?(<!-- /keep notes -->)", r"\1By hand.\n\2", text, flags=re.S
    )
    text = text.replace("library_name: open_clip\n", "library_name: open_clip\nlicense: mit\n")
    card.write_text(
        text + "\n<!-- keep more -->\nAnother.\n<!-- /keep more -->\n", encoding="utf-8"
    )
    (folder / ".gitattributes").write_text("*.onnx filter=lfs\n")
    with pytest.raises(ExportError, match="--overwrite replaces it"):
        export_model(native.run, folder)
    again = export_model(native.run, folder, overwrite=True, name="renamed")
    text = card.read_text(encoding="utf-8")
    assert "By hand.\n" in text
    assert "<!-- keep more -->\nAnother.\n<!-- /keep more -->" in text
    assert "license: mit" in text
    assert "# renamed" in text
    assert (folder / ".gitattributes").is_file()
    assert again.digest == native.info.digest, "the name and the card are not part of it"
    (folder / "plot.png").write_bytes(b"mine")
    with pytest.raises(ExportError, match=r"plot\.png"):
        export_model(native.run, folder, overwrite=True)
    assert (folder / "plot.png").is_file()


def test_other_folders_are_never_replaced(native: Exported) -> None:
    with pytest.raises(ExportError, match="something else than a model folder"):
        export_model(native.run, native.run, overwrite=True)
    assert (native.run / RunFiles.RUN).is_file()


def test_changed_weights_are_refused(native: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(native.folder, folder)
    path = folder / FolderFiles.OPEN_CLIP_WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestError, match=FolderFiles.OPEN_CLIP_WEIGHTS):
        export_model(folder, tmp_path / "out")


def test_a_tampered_file_fails_parity(native: Exported, tmp_path: Path) -> None:
    batches = towers.text_batches(native.model)
    expected = towers.expected_outputs(towers.text_tower(native.model), batches)
    path = tmp_path / "text_model.onnx"
    proto = onnx.load(native.folder / FolderFiles.TEXT_ONNX)
    onnx.save(proto, path)
    assert measure_parity(path, batches, expected).max_abs < 1e-5
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(weight.raw_data, np.float32).copy()
    values *= 1 + 0.01 * np.random.default_rng(0).standard_normal(len(values)).astype(np.float32)
    weight.raw_data = values.tobytes()
    onnx.save(proto, path)
    with pytest.raises(ParityError, match="differ from torch's by"):
        measure_parity(path, batches, expected)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ExportError, match="onnxruntime cannot run it"):
        measure_parity(path, batches, expected)


def test_a_failed_export_leaves_nothing(
    native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **settings: object) -> towers.Written:
        raise ParityError("too far")

    monkeypatch.setattr(folder_module, "write_towers", fail)
    with pytest.raises(ParityError, match="too far"):
        export_model(native.run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(native.folder, tmp_path / "model")
    with pytest.raises(ParityError):
        export_model(native.run, tmp_path / "model", overwrite=True)
    assert read_model_info(tmp_path / "model") == native.info, "what was there is still there"


@pytest.mark.usefixtures("same_towers")
def test_a_killed_export_leaves_no_folder_and_the_next_one_clears_up(
    native: Exported, tmp_path: Path
) -> None:
    script = (
        "import os, sys; from ptft.export import export_model, folder\n"
        "folder.write_towers = lambda *a, **b: os.kill(os.getpid(), 9)\n"
        "export_model(*sys.argv[1:])"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", script, native.run, out], capture_output=True)
    assert done.returncode == -9
    assert not out.exists()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    export_model(native.run, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((out / FolderFiles.INFO).read_text())["digest"] == native.info.digest
