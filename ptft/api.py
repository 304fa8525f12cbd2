"""What ``import ptft`` offers: the verbs of the command as functions, for scripts and notebooks.

The command's verbs call the same functions, so both do the same. Overrides are keyword arguments::

    ptft.train("shoes.yaml", optim={"lr": 1e-4}, run={"dir": "runs/shoes"})

A dict changes the keys that it has and leaves the section's others; one with a ``kind`` takes the
section's place. Torch is imported when a function is called.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptft.artifact import ModelInfo, RunFiles
from ptft.errors import UsageError
from ptft.model_source import Run, recipe_file, resolve
from ptft.recipe import Recipe, check_evaluations, check_recipe, load_evaluation, load_recipe
from ptft.speech import tell

if TYPE_CHECKING:
    from ptft.data import SampleSet
    from ptft.evaluate import Figures
    from ptft.evaluate.class_answers import ClassAnswers
    from ptft.evaluate.detect import Detections
    from ptft.evaluate.label_answers import LabelAnswers
    from ptft.model import DualEncoder
    from ptft.speech import ProgressCallback
    from ptft.train import TrainResult

__all__ = [
    "dotted_overrides",
    "evaluate",
    "export",
    "load_model",
    "measure",
    "measure_beside",
    "train",
]

RecipeSource = str | Path | Mapping[str, Any] | Recipe
"""A YAML file, the name of a built-in recipe, its values, or a recipe that was loaded."""


def train(
    recipe: RecipeSource,
    *,
    resume: bool | Literal["auto"] = False,
    accept_changes: bool = False,
    **overrides: Any,
) -> "TrainResult":
    """Pretrain or fine-tune, whichever the recipe says.

    Args:
        recipe: a YAML file, a built-in recipe (``"pretrain/scenes"``), or its values as a dict.
        resume: go on with the newest run of this recipe, or with the one at ``run.dir``;
            ``"auto"``: or begin, where there is none.
        accept_changes: go on although the data or the recipe are not those that the run began with.
        overrides: keys of the recipe: ``seed=1``, ``optim={"lr": 1e-4}``.

    Returns:
        An object with the run's ``folder``, whether it is ``finished``, and ``metrics``, which are
        the figures of the recipe's evaluations by their names.

    Raises:
        RecipeError: a key, a value or a file of the recipe.
        PtftError: what else went wrong, see :func:`ptft.sequence.run_recipe`.
    """
    source = _values(recipe)
    loaded = load_recipe(source, list(dotted_overrides(overrides)))
    check_recipe(loaded)  # before seconds go into imports
    from ptft.sequence import run_recipe

    return run_recipe(loaded, resume=resume, accept_changes=accept_changes)


def evaluate(
    model: "str | Path | DualEncoder",
    recipe: RecipeSource | None = None,
    *,
    verify: bool = True,
    **overrides: Any,
) -> "dict[str, Figures]":
    """Measure a model by the evaluations of a recipe.

    Args:
        model: a run, a checkpoint, a model folder or ``org/repo@revision``; or a model that
            :func:`load_model` gave, with a recipe.
        recipe: it needs nothing but ``evaluate`` and the data that it reads. Absent: the one that
            lies beside the model.
        verify: hold the model's files against what it records of them.
        overrides: keys of the recipe: ``evaluate=[{"kind": "retrieval", "split": "test"}]``.

    Returns:
        Figures of each evaluation by its name, which are shares of 1, ranks and counts.

    Raises:
        UsageError: there is no recipe, or it has nothing to measure by.
        PtftError: the model or the data cannot be read, or lack what an evaluation needs.
    """
    return measure(model, recipe, list(dotted_overrides(overrides)), verify=verify)


def load_model(source: str | Path, *, verify: bool = True) -> "DualEncoder":
    """Read a model, in eval mode, on the CPU. Nothing in it is run.

    Args:
        source: a run, a checkpoint, a model folder, or ``org/repo@revision`` on the Hub.
        verify: hold its files against the digests that it records.

    Returns:
        A torch module of which ``model(images, tokens)`` gives L2-normalised embeddings (B, D) of
        each; ``model.spec.preprocess`` and ``model.spec.tokenizer`` make its inputs.

    Raises:
        PtftError: see :func:`ptft.model.load_model`.
    """
    from ptft.model import load_model as load

    return load(source, verify=verify)


def export(source: str | Path, out: str | Path, **options: Any) -> ModelInfo:
    """Write the model folder of a run, with ONNX files that are held against it.

    Args:
        source: a run, a checkpoint, a model folder, or ``org/repo@revision``.
        out: the folder to write.
        options: of :func:`ptft.export.export_model`: ``name``, ``licence``, ``overwrite``,
            ``precisions``, ``measure``, ...

    Returns:
        What ``ptft.json`` says of the folder; ``digest`` is the model's.

    Raises:
        PtftError: see :func:`ptft.export.export_model`.
    """
    from ptft.export import export_model

    return export_model(source, Path(out), **options)


def measure(
    model: "str | Path | DualEncoder",
    recipe: RecipeSource | None,
    overrides: Sequence[str],
    *,
    verify: bool = True,
    tell: Callable[[str], None] = tell,
    count: "ProgressCallback | None" = None,
) -> "dict[str, Figures]":
    """As :func:`evaluate`, with overrides as the command line has them.

    Args:
        overrides: ``dotted.key=value``.
        tell: told what is being done, in words.
        count: told how many samples of an evaluation are done.
    """
    loaded = _evaluations(model, recipe, overrides)
    read = _read(model, loaded, verify, tell) if isinstance(model, str | Path) else model
    return _figures(read, loaded, tell, count)


def measure_beside(
    models: Sequence[str],
    recipe: RecipeSource | None,
    overrides: Sequence[str],
    *,
    page: Path | None = None,
    per_class: bool = False,
    verify: bool = True,
    tell: Callable[[str], None] = tell,
    count: "ProgressCallback | None" = None,
) -> "dict[str, dict[str, Figures]]":
    """Measure several models by the same evaluations, and show them beside each other.

    Args:
        models: the one that the others are held against first; its recipe counts where none is
            given.
        overrides, tell, count: of :func:`measure`.
        page: the HTML file to write; None: none.
        per_class: of evaluations by class, put each class's figures under ``per_class``.

    Returns:
        Figures of each evaluation by its name, of each model by what it was named.

    Raises:
        UsageError: a model is named twice, or the page has no folder to lie in.
        PtftError: as :func:`evaluate`.
    """
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--beside: {twice!r} is named twice; allowed: each model once")
    if page is not None and not page.parent.is_dir():
        raise UsageError(f"--page: {str(page)!r}: no such folder: {str(page.parent)!r}")
    loaded = _evaluations(models[0], recipe, overrides)
    from ptft.beside import box_part, class_part, measured_model, write_beside
    from ptft.evaluate.class_answers import ClassAnswers
    from ptft.evaluate.label_answers import LabelAnswers
    from ptft.report.neighbours.find import find_answers
    from ptft.report.neighbours.record import Neighbours

    nearest = {item.label: Neighbours() for item in loaded.evaluate}
    found, shown = {}, []
    for name in models:
        model = _read(name, loaded, verify, tell)
        classed: dict[str, ClassAnswers | LabelAnswers] = {}
        kept: dict[str, tuple[SampleSet, Detections]] = {}
        found[name] = _figures(model, loaded, tell, count, classed, kept)
        if per_class:
            for label, answers in classed.items():
                own = {each: one._asdict() for each, one in answers.per_class().items()}
                found[name][label]["per_class"] = own
        if page is not None:
            tell("looking at what it finds nearest")
            nearest_found = {
                item.label: find_answers(nearest[item.label], loaded, item, model)
                for item in loaded.evaluate
            }
            parts = {
                item.label: class_part(classed[item.label], loaded, item)
                for item in loaded.evaluate
                if item.label in classed
            }
            boxes = {label: box_part(*one) for label, one in kept.items()}
            shown.append(measured_model(name, found[name], nearest_found, parts, boxes))
    if page is not None:
        write_beside(page, loaded, shown, nearest)
    return found


def _evaluations(
    model: "str | Path | DualEncoder", recipe: RecipeSource | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe to measure by: the one that is given, or that travels with the model."""
    named = str(model) if isinstance(model, str | Path) else "the model"
    foreign = recipe is None  # a recipe that is not named may be anybody's
    source = _recipe_beside(model) if recipe is None else _values(recipe)
    loaded = load_evaluation(source, overrides, model=named, foreign=foreign)
    if not loaded.evaluate:
        what = source if isinstance(source, str | Path) else loaded.name
        raise UsageError(f"{what}: evaluate: empty; name what to measure")
    check_evaluations(loaded)
    return loaded


def _read(
    model: str | Path, loaded: Recipe, verify: bool, tell: Callable[[str], None]
) -> "DualEncoder":
    """The model; where it is a run, that reads test splits, it is noted there."""
    from ptft.model import load_model as read
    from ptft.runs.folder import note_test_read, read_run

    if isinstance(run := resolve(model), Run):
        note_test_read(run.path, read_run(run.path), loaded.evaluate, by="evaluate")
    tell(f"reading {model}")
    return read(model, verify=verify, tell=tell)


def _figures(
    model: "DualEncoder",
    loaded: Recipe,
    tell: Callable[[str], None],
    count: "ProgressCallback | None",
    classed: "dict[str, ClassAnswers | LabelAnswers] | None" = None,
    keep: "dict[str, tuple[SampleSet, Detections]] | None" = None,
) -> "dict[str, Figures]":
    from ptft.evaluate import evaluate as run
    from ptft.evaluate.ranks import scores_within

    tell(f"measuring it by {', '.join(item.label for item in loaded.evaluate)}")
    with scores_within(loaded.run.evaluate_mb):
        return run(
            model,
            loaded.evaluate,
            loaded.data,
            seed=loaded.seed,
            progress=count,
            tell=tell,
            keep=keep,
            classed=classed,
        )


def _recipe_beside(model: "str | Path | DualEncoder") -> Path:
    """The recipe that travels with a model."""
    if not isinstance(model, str | Path):
        raise UsageError("evaluate: a model that was loaded; give a recipe to measure it by")
    found = recipe_file(resolve(model))
    if found is None:
        raise UsageError(f"{model}: no {RunFiles.RECIPE} beside it; give --recipe")
    return found


def _values(recipe: RecipeSource) -> str | Path | Mapping[str, Any]:
    return recipe.model_dump(mode="json", by_alias=True) if isinstance(recipe, Recipe) else recipe


def dotted_overrides(overrides: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """``a.b=json`` of each value that is set."""
    for key, value in overrides.items():
        if isinstance(value, Mapping) and value and "kind" not in value:
            yield from dotted_overrides(value, f"{before}{key}.")
        else:
            yield f"{before}{key}={json.dumps(value, ensure_ascii=False, default=str)}"
