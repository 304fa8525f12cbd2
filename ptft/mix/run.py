"""Several models in, the weighted mean of their weights out, with a record of what went in.

The mean of the models that are given (a soup of one is that model) is mixed with the start that
they were trained from. Running statistics of batch norms are averaged like the weights, which is
near the truth only while the models are near each other: measure. See :mod:`ptft.model.average`.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, hash_files, write_json
from ptft.errors import ArtifactError, UsageError
from ptft.export.record import Provenance, read_provenance
from ptft.mix.choose import Choice, Grid
from ptft.model import DualEncoder, load_model, save_model
from ptft.model.average import check_alike, interpolate, soup
from ptft.model.store import WEIGHTS
from ptft.model_record import MixParent, MixRecord
from ptft.model_source import HubRevision, resolve
from ptft.speech import tell

__all__ = ["mix"]


def mix(
    sources: Sequence[str],
    out: Path,
    *,
    base: str | None = None,
    alphas: Sequence[float] = (),
    choice: Choice | None = None,
    progress: Callable[[str], None] | None = None,
) -> MixRecord:
    """Write the mix of some models as a folder that holds a model, as a checkpoint does.

    Args:
        sources: runs, checkpoints, model folders or ``org/repo@revision``, all of one start.
        out: the folder to write.
        base: the start; absent: the mean of the sources alone.
        alphas: shares of what was trained, in [0, 1]; several need a choice. Without a base: none.
        choice: how one is chosen, and what is measured; absent: nothing is.
        progress: told what is being done, in words.

    Raises:
        UsageError: there is nothing to mix or to choose by, ``out`` is taken, or no share keeps
            what is to be kept.
        ModelError, HubError, ArtifactError: a model cannot be read, or does not fit the others.
    """
    say = progress or tell
    _check_request(sources, out, base, alphas, choice)
    given = [base, *sources] if base is not None else list(sources)
    origins = [read_provenance(source) for source in given]
    _check_different(given, origins)
    grid = None if choice is None else _grid(choice, sources[0], origins[-len(sources)], alphas)
    models = []
    for source, origin in zip(given, origins, strict=True):
        say(f"reading {origin.folder}")
        models.append(load_model(origin.folder))
        check_alike(models[0], models[-1], names=(given[0], source), reading=base is None)
        if base is not None and len(models) > 2:
            check_alike(models[1], models[-1], names=(given[1], source))
    start = models.pop(0) if base is not None else None
    mixed = soup(models) if len(models) > 1 else models[0]
    del models
    alpha: float | None = None
    figures: dict[str, Any] = {}
    if start is not None and grid is not None:
        alpha, mixed = grid.best(start, mixed, say)
        figures = grid.figures[alpha]
    elif start is not None:
        alpha, mixed = alphas[0], interpolate(start, mixed, alphas[0])
    elif grid is not None:
        figures = grid.measure(mixed)
    return _write(
        out,
        mixed,
        parents=_parents(given, origins, alpha),
        alpha=alpha,
        evaluation=figures,
        grid=[] if grid is None else _rows(grid),
        rule="" if grid is None else grid.rule,
    )


def _grid(choice: Choice, source: str, origin: Provenance, alphas: Sequence[float]) -> Grid:
    recipe = choice.recipe or origin.recipe
    if recipe is None:
        raise UsageError(f"{source}: no recipe is recorded to measure by; give --recipe")
    return Grid(recipe, choice, alphas)


def _rows(grid: Grid) -> list[dict[str, Any]]:
    return [{"alpha": a, "evaluation": figures} for a, figures in sorted(grid.figures.items())]


def _check_request(
    sources: Sequence[str],
    out: Path,
    base: str | None,
    alphas: Sequence[float],
    choice: Choice | None,
) -> None:
    if not sources or (len(sources) == 1 and base is None):
        raise UsageError("one model is no mix; allowed: several, or one and --base")
    if base is None and alphas:
        raise UsageError("--alpha: a share against a start; allowed with --base")
    if base is not None and not alphas:
        raise UsageError("--alpha: missing; allowed with --base: one or more of 0 to 1")
    for alpha in alphas:
        if not 0.0 <= alpha <= 1.0:
            raise UsageError(f"--alpha: {alpha:g}; allowed: 0 (the start) to 1 (what was trained)")
    if len(set(alphas)) < len(alphas):
        raise UsageError(f"--alpha: {', '.join(f'{a:g}' for a in alphas)}; allowed: each once")
    if len(alphas) > 1 and choice is None:
        raise UsageError("--alpha: several, and no evaluation to choose by; give --recipe")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: something is there already; name a new folder")


def _check_different(given: Sequence[str], origins: Sequence[Provenance]) -> None:
    seen: dict[str, str] = {}
    for source, origin in zip(given, origins, strict=True):
        if origin.weights_digest in seen:
            raise UsageError(
                f"{source}: the weights of {seen[origin.weights_digest]} again; allowed: each once"
            )
        seen[origin.weights_digest] = source


def _parents(
    given: Sequence[str], origins: Sequence[Provenance], alpha: float | None
) -> list[MixParent]:
    """Every model with its share: the start's first, where there is one."""
    trained = len(given) if alpha is None else len(given) - 1
    shares = [(1.0 if alpha is None else alpha) / trained] * trained
    if alpha is not None:
        shares.insert(0, 1.0 - alpha)
    return [
        MixParent(
            name=origin.name,
            share=share,
            weights_digest=origin.weights_digest,
            recipe_digest=origin.recipe_digest,
            hub=source if isinstance(resolve(source), HubRevision) else None,
            licence=origin.licence,
        )
        for source, origin, share in zip(given, origins, shares, strict=True)
    ]


def _write(out: Path, model: DualEncoder, **facts: Any) -> MixRecord:
    """The folder, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()  # a new one: not through a link that somebody put there
    except FileExistsError:
        raise ArtifactError(f"{partial}: something else is there; move it away") from None
    try:
        save_model(model, partial)
        files = hash_files(partial)
        digest = files[WEIGHTS]["sha256"]
        record = MixRecord(name=out.resolve().name, weights_digest=digest, files=files, **facts)
        write_json(partial / RunFiles.MIX, asdict(record))
        if out.is_dir():
            out.rmdir()  # empty
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record
