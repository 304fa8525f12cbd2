"""The model folder that the service is to serve: verified, loaded, and seen to work here."""

import hashlib
import os
import time

from ptft import __version__
from ptft.artifact import PRECISIONS, FolderFiles, ModelInfo, read_model_info, verify_files
from ptft.errors import ArtifactError, DigestError, PtftError
from ptft.onnx.golden import check_golden
from ptft.onnx.model import OnnxModel, check_recorded, tower_file
from ptft.onnx.provider import ON_GPU, Provider
from ptft.onnx.trial import try_model
from serving.settings import Settings
from serving.warmup import MOST, MOST_ON_GPU

__all__ = ["CHECKED", "evidence", "load_model", "verify_model"]

CHECKED = "_PTFT_CHECKED"
"""Environment variable by which a supervisor tells its workers what it has checked."""

_TICK = 2_000_000_000  # ns; the coarsest clock of a file system that is in use


def verify_model(settings: Settings) -> ModelInfo:
    """Hold the folder's bytes against ``ptft.json``, and its digest against the one asked for.

    The digest is that of the whole model folder. Files that the service does not read, such as
    the weights for torch, are left to ``ptft verify`` and may be absent, so that an image need not
    carry them. What the record
    leaves out is not read: a model whose tokenizer, golden embeddings or towers are not in it is
    refused.

    Raises:
        ArtifactError: no model folder, one that this version does not read, or one that does not
            record what the service reads.
        DigestError: other bytes, or another model.
    """
    folder = settings.model
    if not folder.is_dir():
        raise ArtifactError(f"PTFT_MODEL={folder}: no such folder")
    info = read_model_info(folder)
    if settings.model_digest and info.digest != settings.model_digest:
        raise DigestError(
            f"{folder}: the model's digest is {info.digest}; "
            f"PTFT_MODEL_DIGEST asks for {settings.model_digest}"
        )
    read = {FolderFiles.TOKENIZER, FolderFiles.GOLDEN, FolderFiles.HEAD, FolderFiles.SKETCH}
    for tower in (FolderFiles.VISION_ONNX, FolderFiles.TEXT_ONNX):
        path = tower_file(tower, settings.precision)
        if path not in info.files:
            has = [name for name in PRECISIONS if tower_file(tower, name) in info.files]
            raise ArtifactError(
                f"{folder}: no {path}; PTFT_PRECISION={settings.precision} needs it; "
                f"allowed: {', '.join(has)}"
            )
        read |= {path, f"{path}_data"}
    for name in (FolderFiles.TOKENIZER, FolderFiles.GOLDEN):
        check_recorded(folder, info, name)
    files = {name: entry for name, entry in info.files.items() if name in read}
    verify_files(folder, files, remember=True)
    return info


def load_model(settings: Settings) -> OnnxModel:
    """Verify the folder, run it once within bounds, load it, and hold it against its golden
    embeddings; all but the loading is left out where the supervisor has just done it.

    Raises:
        UsageError: the provider that is asked for is not there.
        ArtifactError, DigestError: see ``verify_model``, ``try_model`` and ``check_golden``.
    """
    told = os.environ.get(CHECKED)
    if told and told == evidence(settings):
        info = read_model_info(settings.model)
        return _load(settings, info)
    info = verify_model(settings)
    on_gpu = _provider(settings).to_be_tried()[0][0] in ON_GPU
    batch = settings.micro_batch or (MOST_ON_GPU if on_gpu else MOST)
    try_model(settings.model, info, settings.precision, batch=batch)
    model = _load(settings, info)
    check_golden(model, settings.model)
    return model


def _load(settings: Settings, info: ModelInfo) -> OnnxModel:
    folder, threads = settings.model, settings.threads
    return OnnxModel(folder, info, settings.precision, threads, _provider(settings))


def _provider(settings: Settings) -> Provider:
    return Provider(settings.provider, settings.provider_options)


def evidence(settings: Settings) -> str:
    """What a check was made of: the settings that matter, and all that the file system says of each
    file. Empty where a file changed a moment ago, so that another change could look the same.

    The supervisor hands it to its workers (``CHECKED``), so that a folder is read once.
    """
    info = read_model_info(settings.model)
    state: list[object] = [__version__, settings.precision, settings.micro_batch, info.digest]
    state += [settings.provider, settings.provider_options]
    newest = 0
    for name in sorted([*info.files, FolderFiles.INFO]):
        path = settings.model / name
        if path.is_file():
            found = path.stat()
            changed = (found.st_mtime_ns, found.st_ctime_ns)
            state += [name, found.st_dev, found.st_ino, found.st_size, *changed]
            newest = max(newest, *changed)
    if newest > time.time_ns() - _TICK:
        return ""
    return hashlib.sha256(repr(state).encode()).hexdigest()


def main() -> int:
    """``python -m serving.model``: load the model of the environment as a worker would; the
    evidence of it is all that it prints."""
    import sys

    from serving.keys import check_keys
    from serving.settings import read_settings

    try:
        settings = read_settings(os.environ)
        check_keys(settings)
        before = evidence(settings) if settings.model.is_dir() else ""
        load_model(settings)
    except PtftError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(before)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
