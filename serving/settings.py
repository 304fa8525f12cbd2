"""Settings of the service: the ``PTFT_*`` environment variables, read once into one value."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ptft.artifact import PRECISIONS
from ptft.errors import UsageError, suggest

__all__ = ["MODEL", "Settings", "available_cpus", "read_settings", "unknown_settings"]

PREFIX = "PTFT_"
MODEL = PREFIX + "MODEL"
BUNDLED_MODEL = Path(__file__).resolve().parent.parent / "model"  # `bentoml build` puts it here
MOUNTED_MODEL = Path("/model")
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Settings:
    """What an operator decides; every field is one environment variable.

    Attributes:
        model: ``PTFT_MODEL``, the model folder, relative to where ``bentoml serve`` is called; by
            default ``model`` beside ``serving`` (as in a bento), else ``/model``.
        model_digest: ``PTFT_MODEL_DIGEST``; the service refuses to start on another model.
        precision: ``PTFT_PRECISION``, which ONNX files run: fp32, fp16 or int8.
        threads: ``PTFT_THREADS``, of onnxruntime within a batch and of image decoding; by
            default the CPUs that this process may use, a container's limit included.
        max_body_bytes: ``PTFT_MAX_BODY_BYTES``, of one request.
        max_pixels: ``PTFT_MAX_PIXELS``, width times height of one image.
        max_batch: ``PTFT_MAX_BATCH``, images or texts in one request.
        micro_batch: ``PTFT_MICRO_BATCH``, images or texts that run through a tower at once.
        max_queue: ``PTFT_MAX_QUEUE``, images and texts of all requests that are being
            answered; beyond it requests are refused (429).
        max_prompts: ``PTFT_MAX_PROMPTS``, labels times templates of one request.
        timeout_s: ``PTFT_TIMEOUT_S``, seconds from a request's arrival to its answer.
        drain_s: ``PTFT_DRAIN_S``, seconds that SIGTERM leaves for clients to go elsewhere,
            during which requests are still answered.
    """

    model: Path
    model_digest: str = ""
    precision: str = "fp32"
    threads: int = 1
    max_body_bytes: int = 16 * 2**20
    max_pixels: int = 64_000_000  # a 64-megapixel photo, 192 MB once decoded
    max_batch: int = 64
    micro_batch: int = 16
    max_queue: int = 256
    max_prompts: int = 2048
    timeout_s: float = 30.0
    drain_s: float = 1.0


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the variables.

    Raises:
        UsageError: naming the variable, its value and what is allowed.
    """
    default = Settings(model=BUNDLED_MODEL if BUNDLED_MODEL.is_dir() else MOUNTED_MODEL)

    def text(name: str) -> str:
        return environment.get(PREFIX + name, "").strip()

    def number(name: str, fallback: int, low: int) -> int:
        raw = text(name)
        if not raw:
            return fallback
        if not raw.isascii() or not raw.isdigit() or int(raw) < low:
            raise UsageError(f"{PREFIX}{name}={raw}: allowed: a whole number of at least {low}")
        return int(raw)

    def seconds(name: str, fallback: float, low: float) -> float:
        raw = text(name)
        try:
            value = float(raw) if raw else fallback
        except ValueError:
            value = math.nan
        if not low <= value <= 3600:
            raise UsageError(f"{PREFIX}{name}={raw}: allowed: seconds from {low:g} to 3600")
        return value

    precision = text("PRECISION") or default.precision
    if precision not in PRECISIONS:
        raise UsageError(f"{PREFIX}PRECISION={precision}: {suggest(precision, PRECISIONS)}")
    digest = text("MODEL_DIGEST")
    if digest and not _is_digest(digest):
        raise UsageError(f"{PREFIX}MODEL_DIGEST={digest}: allowed: sha256: and 64 hex digits")
    settings = Settings(
        model=Path(text("MODEL")) if text("MODEL") else default.model,
        model_digest=digest,
        precision=precision,
        threads=number("THREADS", available_cpus(), 1),
        max_body_bytes=number("MAX_BODY_BYTES", default.max_body_bytes, 1024),
        max_pixels=number("MAX_PIXELS", default.max_pixels, 1),
        max_batch=number("MAX_BATCH", default.max_batch, 1),
        micro_batch=number("MICRO_BATCH", default.micro_batch, 1),
        max_queue=number("MAX_QUEUE", default.max_queue, 1),
        max_prompts=number("MAX_PROMPTS", default.max_prompts, 1),
        timeout_s=seconds("TIMEOUT_S", default.timeout_s, 0.1),
        drain_s=seconds("DRAIN_S", default.drain_s, 0),
    )
    if settings.max_queue < settings.max_batch:
        raise UsageError(
            f"{PREFIX}MAX_QUEUE={settings.max_queue}: allowed: at least "
            f"{PREFIX}MAX_BATCH={settings.max_batch}, or such a request could never be answered"
        )
    return settings


def unknown_settings(environment: Mapping[str, str] = os.environ) -> list[str]:
    """One sentence for every ``PTFT_*`` variable that is no setting.

    Not an error: Kubernetes injects ``PTFT_PORT`` and its kin beside a Service named ptft.
    """
    known = {PREFIX + name.upper() for name in Settings.__dataclass_fields__}
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    return [f"{name} is no setting of the service; {suggest(name, known)}" for name in unknown]


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, cut to the limit of its container."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_MAX.read_text().split()
        return max(1, min(cpus, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return cpus


def _is_digest(digest: str) -> bool:
    scheme, _, digits = digest.partition(":")
    return scheme == "sha256" and len(digits) == 64 and set(digits) <= set("0123456789abcdef")
