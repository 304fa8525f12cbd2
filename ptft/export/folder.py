"""The model folder: one folder for every client, written whole or not at all."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptft.artifact import (
    PRECISIONS,
    FolderFiles,
    ModelInfo,
    read_model_info,
    write_json,
    write_model_info,
)
from ptft.errors import ExportError, PtftError, UsageError, suggest
from ptft.export.card import Kept, make_card, read_kept
from ptft.export.library_files import Library, write_library_files
from ptft.export.model_files import map_weights, portable, write_model_files
from ptft.export.owlvit import OWLVIT
from ptft.export.owlvit_onnx import write_owlvit_onnx
from ptft.export.parity import check_adapted, find_reference, make_golden, save_golden, ship_adapter
from ptft.export.pixels import check_preprocess, write_preprocess
from ptft.export.quality import Quality, judge_texts
from ptft.export.record import Provenance, make_record, read_provenance, task_of
from ptft.export.samples import calibration_pictures, write_pictures, write_sketch
from ptft.export.towers import MAX_LOSS, Written, write_towers
from ptft.files.atomic import shareable
from ptft.model import DualEncoder, load_model
from ptft.pages.markdown import UNKNOWN
from ptft.recipe import RunSection, dump_recipe, recipe_digest
from ptft.recipe.publication import public_text, published_recipe
from ptft.speech import ProgressCallback, tell

__all__ = ["CLIENTS", "export_model"]

_LIBRARIES = ("transformers", "timm", "sentence-transformers")
CLIENTS = ("open_clip", *_LIBRARIES, "onnx")
"""What an export may be for."""
_NOT_ASKED = "its files were not asked for (`ptft export --for`)"


def export_model(
    source: str | Path,
    out: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    examples: bool = False,
    overwrite: bool = False,
    precisions: Sequence[str] = tuple(PRECISIONS),
    clients: Sequence[str] = CLIENTS,
    max_loss: float = MAX_LOSS,
    measure: bool = True,
    progress: Callable[[str], None] | None = None,
    count: ProgressCallback | None = None,
) -> ModelInfo:
    """Write the model folder of a run (or of another model folder) and return its ``ptft.json``.

    The folder appears under its name when it is complete, parity included; a failure leaves
    nothing. The same source on the same machine gives the same bytes, so the same digest.

    Args:
        source: a run, a checkpoint, a model folder, or ``org/repo@revision`` on the Hub.
        out: the folder to write.
        name: of the model; absent: the run's.
        licence: for the card, by the Hub's short name (``apache-2.0``); absent: the one that the
            card of the replaced folder names, or else that of the weights training started from.
        examples: show samples of the data on the card, with what the model finds nearest; of data
            that ptft draws itself they are shown anyway.
        overwrite: replace a model folder that is there. The kept parts of its card stay, and its
            hidden files (``.gitattributes``).
        precisions: of the ONNX towers, names of :data:`ptft.artifact.PRECISIONS`; fp32 is always
            written. A file of another precision that does not load, is not close to the model or
            costs too much is not: the reason is said, and stands in ``metrics.json``.
        clients: that the folder is for, names of :data:`CLIENTS`. The weights that ptft reads,
            which are open_clip's where it can express the model, the tokenizer and golden
            embeddings are always written; ONNX files, which the service reads, only for ``onnx``,
            and ``config.json`` with transformers' weights for any library that reads it.
        max_loss: points of recall or accuracy that such a file may cost.
        measure: run the recipe's evaluations with every file, where their data is here.
        progress: told what is being done, in words.
        count: told how many samples of an evaluation are done.

    Raises:
        UsageError: a precision or a client is unknown.
        ExportError: ``out`` is taken, or a tower cannot be exported.
        ParityError: an ONNX file does not give the checkpoint's embeddings.
        AdaptError: it does not give those of the adapted model that was trained.
        ModelError, HubError, ArtifactError: the source cannot be read, or was changed.
    """
    # Over 60 lines: the files of a model folder, one after another, as a list of steps.
    say = progress or tell
    out = Path(out)
    _check_known("precision", precisions, PRECISIONS)
    _check_known("client", clients, CLIENTS)
    _check_place(out, overwrite)
    kept = read_kept(out / FolderFiles.CARD)
    origin = read_provenance(source)
    say(f"reading {origin.folder}")
    model = load_model(origin.folder, tell=say).cpu().float().eval()
    task_of(model)  # refuses what no folder holds, before anything is written
    trained = find_reference(origin.source)
    model.spec = portable(model.spec)
    with _whole(out) as folder:
        say("writing weights, tokenizer and golden embeddings")
        golden = make_golden(model)
        write_model_files(model, folder)
        map_weights(model, folder)
        save_golden(golden, folder / FolderFiles.GOLDEN)
        ship_adapter(origin.source, folder)
        libraries = {name: Library(reason=_NOT_ASKED) for name in _LIBRARIES}
        if {*clients} & {*_LIBRARIES}:
            say("writing what transformers and timm load, and holding it against the model")
            libraries = write_library_files(model, golden, folder)
        measure = measure and "onnx" in clients
        if measure:
            say("measuring the model itself by its recipe's evaluations")
        quality = Quality(model, origin.recipe, measure=measure, count=count)
        written, pixels, whole = Written(), None, None
        if "onnx" in clients:
            written = write_towers(
                model,
                folder,
                precisions=[name for name in PRECISIONS if name == "fp32" or name in precisions],
                quality=quality,
                max_loss=max_loss,
                pictures=calibration_pictures(model, origin.recipe),
                say=say,
            )
            if libraries["transformers"].loads == OWLVIT:
                say(f"writing {FolderFiles.OWLVIT_ONNX}, and holding it against the golden boxes")
                whole = write_owlvit_onnx(model, golden, folder)
            pixels = _write_pixels(model, folder, say)
        for file, reason in written.left_out.items():
            say(f"{file} is left out: {reason}")
        if trained is not None:
            say("holding the files against the adapted model as it was trained")
            check_adapted(trained, model, folder if "onnx" in clients else None)
        say("sketching the embeddings of the training data")
        no_sketch = write_sketch(model, origin.recipe, folder / FolderFiles.SKETCH, count=count)
        if no_sketch is not None:
            say(f"{FolderFiles.SKETCH} is left out: {no_sketch}")
        metrics = _metrics(origin, written, quality, libraries) | {"pixels": pixels}
        if whole is not None:
            metrics["owlvit_onnx"] = whole
        objective = None if origin.recipe is None else origin.recipe.objective
        texts = judge_texts(model.spec, task_of(model), metrics["evaluation"], objective)
        metrics["texts"] = asdict(texts)
        if texts.reason:
            say(f"texts are {texts.offered}: {texts.reason}")
        write_json(folder / FolderFiles.METRICS, metrics)
        published = _publish_recipe(origin, folder, say)
        if origin.mix is not None:
            write_json(folder / FolderFiles.MIX, asdict(origin.mix))
        write_pictures(origin.source, folder, origin.recipe, examples=examples)
        say("hashing what was written")
        loads = _clients(model, libraries)
        info = make_record(model, origin, name or origin.name, folder, loads, published, texts)
        _write_card(info, model, origin, metrics, folder, licence, kept)
        write_model_info(folder, info)
    say(f"{out}: {info.digest}")
    return info


def _check_known(kind: str, asked: Sequence[str], known: Collection[str]) -> None:
    for name in asked:
        if name not in known:
            raise UsageError(f"{kind} {name!r}: {suggest(name, known)}")
    if kind == "client" and not asked:
        raise UsageError(f"client: none; allowed: {', '.join(known)}")


def _write_pixels(model: DualEncoder, folder: Path, say: Callable[[str], None]) -> dict[str, float]:
    say("writing how pictures become pixels, and holding it against the model's way")
    write_preprocess(model.spec.preprocess, folder / FolderFiles.PREPROCESS_ONNX)
    return check_preprocess(model.spec.preprocess, folder / FolderFiles.PREPROCESS_ONNX)


def _check_place(out: Path, overwrite: bool) -> None:
    """Refuse to write where something is that the export would lose."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ExportError(f"{out}: a file is there; allowed: a new folder")
    if not (out / FolderFiles.INFO).is_file():
        raise ExportError(f"{out}: something else than a model folder is there; name a new folder")
    if not overwrite:
        raise ExportError(f"{out}: a model folder is there; --overwrite replaces it")
    try:
        known = set(read_model_info(out).files) | FolderFiles.UNHASHED
    except PtftError:
        return  # damaged, and to be replaced
    for path in sorted(out.rglob("*")):
        relative = path.relative_to(out)
        if path.is_file() and relative.as_posix() not in known and relative.parts[0][0] != ".":
            raise ExportError(
                f"{out}: holds {relative}, which no export wrote and replacing would lose; "
                "move it away first"
            )


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write into, which takes its place at the end.

    A process that is killed leaves only the hidden folder, which the next export removes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    for stale in out.parent.glob(f".{out.name}.*.export"):
        if not _alive(stale.name.split(".")[-2]):
            shutil.rmtree(stale, ignore_errors=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.export")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                shareable(path)
        if out.is_dir():
            for hidden in out.glob(".*"):
                if hidden.name in (FolderFiles.PULLED, FolderFiles.PARTS):
                    continue  # of what is being replaced
                _copy(hidden, partial / hidden.name)
            before = out.with_name(f".{out.name}.{os.getpid()}.replaced.export")
            out.rename(before)
            partial.rename(out)
            shutil.rmtree(before)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, symlinks=True)
    else:
        shutil.copy2(path, target, follow_symlinks=False)


def _clients(model: DualEncoder, libraries: dict[str, Library]) -> dict[str, dict[str, str]]:
    """``ModelInfo.clients``."""
    reason = model.spec.open_clip_reason
    own = Library(loads=model.spec.name) if reason is None else Library(reason=reason)
    return {
        name: {"loads": one.loads} if one.loads is not None else {"reason": str(one.reason)}
        for name, one in {"open_clip": own, **libraries}.items()
    }


def _metrics(
    origin: Provenance, written: Written, quality: Quality, libraries: dict[str, Library]
) -> dict[str, Any]:
    """``metrics.json``; names of samples that could not be read stay with the run."""
    evaluation = {
        name: {key: value for key, value in figures.items() if isinstance(value, int | float)}
        for name, figures in origin.evaluation.items()
    }
    return {
        "evaluation": evaluation,
        "parity": {name: asdict(one) for name, one in written.parity.items()},
        "left_out": {name: public_text(why) for name, why in written.left_out.items()},
        "not_measured": None if quality.reason is None else public_text(quality.reason),
        "libraries": {
            name: one.max_abs for name, one in libraries.items() if one.max_abs is not None
        },
    }


def _publish_recipe(origin: Provenance, folder: Path, say: Callable[[str], None]) -> str:
    """Write ``recipe.yaml`` as strangers may read it: without its ``run`` section, which is about
    the machine and not the weights, and without the folders that data and models lay in.

    Returns:
        The digest of what was written; "" where it is that of the run's recipe, or none is known.
    """
    if origin.recipe is None:
        return ""
    recipe, changed = published_recipe(origin.recipe.model_copy(update={"run": RunSection()}))
    if changed:
        say(f"{FolderFiles.RECIPE}: without the folders and keys in {', '.join(changed)}")
    (folder / FolderFiles.RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
    digest = recipe_digest(recipe)
    return "" if digest == origin.recipe_digest else digest


def _write_card(
    info: ModelInfo,
    model: DualEncoder,
    origin: Provenance,
    metrics: dict[str, Any],
    folder: Path,
    licence: str | None,
    kept: Kept,
) -> None:
    stands = kept.front.get("license", UNKNOWN)
    if licence is None and stands == UNKNOWN:
        licence = origin.licence or None
    text = make_card(
        info,
        model.spec,
        origin.recipe,
        metrics,
        list(info.files),
        licence=licence,
        kept=kept,
        mix=origin.mix,
    )
    (folder / FolderFiles.CARD).write_text(text, encoding="utf-8")
