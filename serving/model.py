"""The model folder that the service is to serve: verified, loaded, and seen to work here."""

from typing import Any

from ptft.artifact import FolderFiles, ModelInfo, read_model_info, tower_file, verify_files
from ptft.errors import ArtifactError, DigestError
from ptft.files.digests import HeldFiles
from ptft.index import Index, read_picture_index
from ptft.onnx.golden import check_golden
from ptft.onnx.model import OnnxModel, check_recorded, tower_names
from ptft.onnx.provider import ON_GPU, PROVIDERS, Provider
from ptft.onnx.served import precisions, read_names
from ptft.onnx.trial import try_model
from ptft.signing import check_signature
from serving.first_run import check_there
from serving.settings import Settings
from serving.warmup import MOST, MOST_ON_GPU

__all__ = [
    "largest_batch",
    "load_model",
    "open_index",
    "open_model",
    "read_files",
    "runs_on_cpu",
    "verify_model",
]


def verify_model(settings: Settings) -> tuple[ModelInfo, HeldFiles]:
    """Hold the folder's bytes against ``ptft.json``, and its digest against the one asked for.

    The digest is that of the whole model folder. Files that the service does not read, such as
    the weights for torch, are left to ``ptft verify`` and may be absent, so that an image need not
    carry them. What the record
    leaves out is not read: a model whose tokenizer, golden embeddings or towers are not in it is
    refused.

    Returns:
        What the folder records, and its files as they were then.

    Raises:
        ArtifactError: no model folder, one that this version does not read, or one that does not
            record what the service reads.
        DigestError: other bytes, or another model.
        SignatureError: it is not signed with the key of ``PTFT_MODEL_SIGNED_BY``.
    """
    check_there(settings)
    folder = settings.model
    info = read_model_info(folder)
    if settings.model_digest and info.digest != settings.model_digest:
        raise DigestError(
            f"{folder}: the model's digest is {info.digest}; "
            f"PTFT_MODEL_DIGEST asks for {settings.model_digest}"
        )
    if settings.model_signed_by is not None:
        check_signature(folder, info, settings.model_signed_by)
    files = read_files(settings, info)
    for name in (FolderFiles.TOKENIZER, FolderFiles.GOLDEN):
        check_recorded(folder, info, name)
    return info, verify_files(folder, files, remember=True)


def read_files(settings: Settings, info: ModelInfo) -> dict[str, dict[str, Any]]:
    """Of a folder's files those that the service reads, as they are recorded.

    Raises:
        ArtifactError: the towers are not there in the precision that is asked for.
    """
    for tower in tower_names(info):
        path = tower_file(tower, settings.precision)
        if path not in info.files:
            raise ArtifactError(
                f"{settings.model}: no {path}; PTFT_PRECISION={settings.precision} needs it; "
                f"allowed: {', '.join(precisions(info))}"
            )
    read = read_names([settings.precision])
    return {name: entry for name, entry in info.files.items() if name in read}


def load_model(settings: Settings) -> OnnxModel:
    """Verify the folder, have it tried within bounds, load it, and hold it against its golden
    embeddings.

    Raises:
        UsageError: the provider that is asked for is not there.
        ArtifactError, DigestError: see ``verify_model``, ``try_model`` and ``check_golden``.
    """
    info, held = verify_model(settings)
    try_model(settings.model, info, settings.precision, batch=largest_batch(settings))
    model = open_model(settings, info)
    check_golden(model, settings.model)
    held.check_unchanged()
    return model


def open_index(settings: Settings, info: ModelInfo) -> Index | None:
    """The index that is mounted, or None.

    Raises:
        DigestError: it was made with another model, or in another precision, or was changed.
        ArtifactError: it is none, or damaged.
    """
    if settings.index is None:
        return None
    if not settings.index.is_dir():
        raise ArtifactError(f"PTFT_INDEX={settings.index}: no such folder")
    return read_picture_index(settings.index, digest=info.digest, precision=settings.precision)


def open_model(settings: Settings, info: ModelInfo) -> OnnxModel:
    """Load a folder that was verified.

    Raises:
        UsageError: the provider that is asked for is not there.
        ArtifactError: see ``OnnxModel``.
    """
    provider = _provider(settings)
    return OnnxModel(settings.model, info, settings.precision, settings.threads, provider)


def runs_on_cpu(settings: Settings) -> bool:
    """Whether memory that the model takes is this process's own.

    Raises:
        UsageError: the provider that is asked for is not there.
    """
    return _provider(settings).to_be_tried()[0][0] == PROVIDERS["cpu"][0]


def largest_batch(settings: Settings) -> int:
    """Items at once that a tower may be asked for.

    Raises:
        UsageError: the provider that is asked for is not there.
    """
    on_gpu = _provider(settings).to_be_tried()[0][0] in ON_GPU
    return settings.micro_batch or (MOST_ON_GPU if on_gpu else MOST)


def _provider(settings: Settings) -> Provider:
    return Provider(settings.provider, settings.provider_options)
