"""What a recipe's model does to pictures and texts, as far as that is known without its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.artifact import FolderFiles, read_json, read_model_info
from ptft.errors import PtftError
from ptft.files.bounds import Bounds
from ptft.model_source import HubRevision, model_folder, resolve
from ptft.preprocess import ImagePreprocess
from ptft.preprocess.cleaning import CLEANERS
from ptft.preprocess.decoding import READING
from ptft.recipe import (
    ArchModel,
    ClipObjective,
    Recipe,
    SiglipObjective,
    TextTower,
    TowersModel,
    read_towers,
)
from ptft.recipe.paths import is_hub_id

__all__ = ["ModelView", "view_of"]


@dataclass(frozen=True)
class ModelView:
    """What reaches the model.

    Attributes:
        preprocess: of pictures.
        clean: of texts, a name of ``CLEANERS``; None: they are shown as they are.
        templates: captions that training makes of class names, in place of the set's own.
        said: where that is from, in words.
    """

    preprocess: ImagePreprocess
    clean: str | None
    templates: tuple[str, ...]
    said: str

    def text(self, caption: str) -> str:
        """A caption as the tokenizer cuts it into tokens."""
        return caption if self.clean is None else CLEANERS[self.clean](caption)


def view_of(recipe: Recipe | None) -> ModelView:
    """Find out what a recipe's model does to samples; what is not cheap to know is the default."""
    if recipe is None:
        return _default("no model is named")
    try:
        preprocess, clean = _of_recipe(recipe)
    except (PtftError, OSError, KeyError, TypeError) as error:
        return _default(f"the model's own is not known here: {error}", recipe)
    height, width = preprocess.size
    said = (
        f"Pictures at {width} x {height}, {preprocess.resize_mode}, {preprocess.interpolation}; "
        f"{preprocess.reading.words}: the recipe's own preprocessing."
    )
    if "text" not in read_towers(recipe.objective):
        said += " This recipe's model is shown no caption."
    elif clean is None:
        said += " Captions as they are: reading this model's tokenizer would cost a download."
    else:
        said += f" Captions as the tokenizer cleans them ({clean})."
    return ModelView(preprocess, clean, _templates(recipe), said)


def _default(why: str, recipe: Recipe | None = None) -> ModelView:
    preprocess = ImagePreprocess()
    said = (
        f"Pictures at 224 x 224, {preprocess.resize_mode}, {preprocess.interpolation}; "
        f"{preprocess.reading.words}: the default, since {why}. Captions as they are."
    )
    return ModelView(preprocess, None, () if recipe is None else _templates(recipe), said)


def _templates(recipe: Recipe) -> tuple[str, ...]:
    objective = recipe.objective
    if not isinstance(objective, ClipObjective | SiglipObjective):
        return ()
    return tuple(objective.templates or ())


def _of_recipe(recipe: Recipe) -> tuple[ImagePreprocess, str | None]:
    """Preprocessing, and the cleaning of texts where that is known."""
    if recipe.init is not None:
        return _of_source(recipe.init.from_)
    model = recipe.model
    if isinstance(model, TowersModel):
        size = (model.image_size, model.image_size)
        clean = "clip" if isinstance(model.text, TextTower) else None
        return ImagePreprocess(size=size, mean=model.mean, std=model.std), clean
    assert isinstance(model, ArchModel), "a recipe has a model, or begins at one"
    return _of_architecture(model)


def _of_source(source: str) -> tuple[ImagePreprocess, str | None]:
    """Of a model folder, a run or a checkpoint on disk."""
    found = resolve(source)
    if isinstance(found, HubRevision):
        raise FileNotFoundError(f"{source} would be downloaded for it")
    from ptft.model.spec import SPEC, load_spec

    folder = model_folder(found)
    if (folder / SPEC).is_file():
        spec = load_spec(folder)
        return spec.preprocess, spec.tokenizer.clean
    if (folder / FolderFiles.INFO).is_file():
        info = read_model_info(folder)
        return ImagePreprocess.from_config(info.preprocess), info.tokenizer.get("clean")
    path = folder / FolderFiles.OPEN_CLIP_CONFIG
    values = Bounds(read_json(path), str(path)).values
    config = Bounds(values.get("model_cfg"), f"{path}: model_cfg").values
    vision = Bounds(config.get("vision_cfg"), f"{path}: model_cfg: vision_cfg").values
    given = Bounds(values.get("preprocess_cfg", {}), f"{path}: preprocess_cfg").values
    config = {"size": vision.get("image_size"), **given}
    return ImagePreprocess.from_config(config, unsaid=READING), None


def _of_architecture(model: ArchModel) -> tuple[ImagePreprocess, str | None]:
    """Of one of open_clip's, with the weights that it begins at."""
    from ptft.compat import import_open_clip
    from ptft.model.pretrained import find_pretrained
    from ptft.model.tokenizers import build_tokenizer

    name = model.pretrained
    if name is not None and is_hub_id(name) and not Path(name).expanduser().exists():
        raise FileNotFoundError(f"{name} would be downloaded for it")
    config: dict[str, Any] = import_open_clip().get_model_config(model.name)
    pretrained = find_pretrained(model)
    size = model.image_size or config["vision_cfg"].get("image_size", 224)
    values = {**(pretrained.preprocess if pretrained else {}), "size": size}
    preprocess = ImagePreprocess.from_config(values, unsaid=READING)
    near = not config["text_cfg"].get("hf_tokenizer_name")
    return preprocess, build_tokenizer(config)[0].clean if near else None
