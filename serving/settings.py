"""Settings of the service: the ``PTFT_*`` environment variables, read once into one value."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ptft.artifact import PRECISIONS
from ptft.errors import UsageError, suggest
from serving.origins import host_of
from serving.variables import Variables

__all__ = [
    "INDEX",
    "KEYS_FILE",
    "MODEL",
    "OTLP_ENDPOINT",
    "RELATIONS",
    "SIGNED_BY",
    "Relation",
    "Settings",
    "available_cpus",
    "read_settings",
    "unknown_settings",
]

PREFIX = "PTFT_"
MODEL, KEYS_FILE, INDEX, SIGNED_BY = (
    PREFIX + name for name in ("MODEL", "KEYS_FILE", "INDEX", "MODEL_SIGNED_BY")
)
BUNDLED_MODEL = Path(__file__).resolve().parent.parent / "model"  # `bentoml build` puts it here
MOUNTED_MODEL = Path("/model")
OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""OpenTelemetry's own variable."""

FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic", "jpeg2000")
"""As ``ptft.preprocess.picture_header`` knows them; the supervisor need not import that."""

_PROVIDERS = ("auto", "cpu", "cuda", "tensorrt", "openvino")  # and ptft.onnx.provider's, likewise
_BODIES = 8  # bodies in the whole memory: twice one is 3/4 of the third that is for them

DEFAULT_FORMATS = ("jpeg", "png", "webp", "gif", "bmp")
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Settings:
    """What an operator decides; every field is one environment variable.

    Attributes:
        model: ``PTFT_MODEL``, the model folder, relative to where ``bentoml serve`` is called; by
            default ``model`` beside ``serving`` (as in a bento), else ``/model``.
        index: ``PTFT_INDEX``, a folder that ``ptft index`` made with this model, for
            ``/v1/search``; none by default.
        model_digest: ``PTFT_MODEL_DIGEST``; the service refuses to start on another model.
        model_signed_by: ``PTFT_MODEL_SIGNED_BY``, a public key; a model must be signed with it.
        precision: ``PTFT_PRECISION``, which ONNX files run: fp32, fp16 or int8.
        threads: ``PTFT_THREADS``, of onnxruntime within a batch and of image decoding; by
            default the CPUs that this process may use, a container's limit included.
        max_body_bytes: ``PTFT_MAX_BODY_BYTES``, of one request.
        max_pixels: ``PTFT_MAX_PIXELS``, width times height of one image.
        max_batch: ``PTFT_MAX_BATCH``, images or texts in one request.
        micro_batch: ``PTFT_MICRO_BATCH``, images or texts that run through a tower at once; None:
            as many as the start has measured to be best.
        max_inputs: ``PTFT_MAX_INPUTS``, of a request to ``/v1/embeddings`` or ``/v1/rerank``, which
            run in batches of ``max_batch``.
        max_queue: ``PTFT_MAX_QUEUE``, images and texts of all requests that are being
            answered; beyond it requests are refused (429).
        max_prompts: ``PTFT_MAX_PROMPTS``, labels times templates of one request.
        max_characters: ``PTFT_MAX_CHARACTERS``, of all texts of one request, and of its labels
            once they stand in the templates.
        max_memory_bytes: ``PTFT_MAX_MEMORY_BYTES``, of everything that requests hold at once: a
            third for bodies, pixels and answers, two thirds for decoding pictures; by default
            192 MiB, or 8 times ``max_body_bytes`` where that is more.
        max_work_s: ``PTFT_MAX_WORK_S``, seconds that the work of all admitted requests is estimated
            to take; by default 10, or a third of ``timeout_s`` where that is less.
        formats: ``PTFT_FORMATS``, picture formats that are read, separated by commas.
        jpeg: ``PTFT_JPEG``: ``reduced`` lets large JPEGs be reduced while they are decoded,
            ``exact`` decodes every pixel, as the reference does.
        timeout_s: ``PTFT_TIMEOUT_S``, seconds from a request's arrival to its answer.
        list_timeout_s: ``PTFT_LIST_TIMEOUT_S``, the same of a request with more inputs than
            ``max_batch``, which runs in batches; at least ``timeout_s``.
        body_idle_s: ``PTFT_BODY_IDLE_S``, seconds without a byte of a body that is awaited.
        header_s: ``PTFT_HEADER_S``, seconds from a connection's first byte to a whole header.
        idle_s: ``PTFT_IDLE_S``, seconds that a connection may be open without a request.
        max_header_bytes: ``PTFT_MAX_HEADER_BYTES``, of one request's line and header.
        max_connections: ``PTFT_MAX_CONNECTIONS``; one more takes the place of the one that has been
            silent longest.
        hang_s: ``PTFT_HANG_S``, seconds beyond twice the longest batch after which a batch hangs,
            and after which an engine that only fails is broken: either ends the process.
        hold_s: ``PTFT_HOLD_S``, seconds that a request which comes while no worker accepts waits
            for the next one, and then for its model; 0: it is told 503 at once. Probes always are.
        drain_s: ``PTFT_DRAIN_S``, seconds that SIGTERM leaves for clients to go elsewhere,
            during which requests are still answered.
        keys_file: ``PTFT_KEYS_FILE``, API keys, one a line as ``python -m serving.keys new`` prints
            it; read again when it changes. Without any key the service is open.
        keys: ``PTFT_KEYS``, more such lines, separated by line ends or semicolons.
        metrics: ``PTFT_METRICS``: ``open`` answers ``/metrics`` to everybody, ``key`` to those who
            have one, ``off`` neither counts nor answers.
        cors_origins: ``PTFT_CORS_ORIGINS``, whose pages may ask from a browser, separated by
            commas, or ``*``.
        log_format: ``PTFT_LOG_FORMAT``: lines for a ``console``, or an object of ``json`` each.
        access_log: ``PTFT_ACCESS_LOG``: ``on`` writes a line for every request.
        otlp_endpoint: ``PTFT_OTLP_ENDPOINT``, where traces go (OTLP over HTTP); by default
            OpenTelemetry's own ``OTEL_EXPORTER_OTLP_ENDPOINT``, and without either there are none.
        trace_ratio: ``PTFT_TRACE_RATIO``, the share of requests that are traced, unless a request's
            ``traceparent`` has decided already.
        aliases: ``PTFT_ALIASES``, further names by which clients may ask for the model, separated
            by commas.
        dimensions: ``PTFT_DIMENSIONS``, to how many dimensions embeddings may be cut, separated by
            commas; what a Matryoshka-trained model's folder states is allowed anyway.
        url_hosts: ``PTFT_URL_HOSTS``, from which pictures are fetched, separated by commas; none by
            default.
        url_s: ``PTFT_URL_S``, seconds to a whole picture of a URL.
        provider: ``PTFT_PROVIDER``, of onnxruntime: ``auto`` (CUDA where it is to be had, else the
            CPU), ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``; what is asked for and not there
            is an error.
        provider_options: ``PTFT_PROVIDER_OPTIONS``, of the provider that is asked for, as
            onnxruntime names them: ``device_id=1,gpu_mem_limit=4294967296``.
        mirror_url: ``PTFT_MIRROR_URL``, of another release, which is asked a share of the requests
            as well; nobody gets its answers, they are counted (``serving.mirror``).
        mirror_share: ``PTFT_MIRROR_SHARE``, that share.
        cache_bytes: ``PTFT_CACHE_BYTES``, of embeddings that are kept for who sends the same bytes
            again; 0 for none.
    """

    model: Path
    index: Path | None = None
    model_digest: str = ""
    model_signed_by: Path | None = None
    precision: str = "fp32"
    threads: int = 1
    max_body_bytes: int = 16 * 2**20
    max_pixels: int = 64_000_000  # a 64-megapixel photo, 192 MB once decoded
    max_batch: int = 64
    micro_batch: int | None = None
    max_inputs: int = 2048
    max_queue: int = 256
    max_prompts: int = 2048
    max_characters: int = 2 * 2**20
    max_memory_bytes: int = 192 * 2**20
    max_work_s: float = 10.0
    formats: tuple[str, ...] = DEFAULT_FORMATS
    jpeg: str = "reduced"
    timeout_s: float = 30.0
    list_timeout_s: float = 300.0
    body_idle_s: float = 5.0
    header_s: float = 10.0
    idle_s: float = 620.0  # a proxy is to close first: Traefik after 90, Google's after 600
    max_header_bytes: int = 64 * 2**10
    max_connections: int = 1024
    hang_s: float = 20.0
    hold_s: float = 0.0
    drain_s: float = 1.0
    keys_file: Path | None = None
    keys: str = field(default="", repr=False)
    metrics: str = "open"
    cors_origins: tuple[str, ...] = ()
    log_format: str = "console"
    access_log: bool = False
    otlp_endpoint: str = ""
    trace_ratio: float = 0.05
    aliases: tuple[str, ...] = ()
    dimensions: tuple[int, ...] = ()
    url_hosts: tuple[str, ...] = ()
    url_s: float = 5.0
    provider: str = "auto"
    provider_options: tuple[tuple[str, str], ...] = ()
    mirror_url: str = ""
    mirror_share: float = 0.05
    cache_bytes: int = 0


@dataclass(frozen=True)
class Relation:
    """A setting must not be below ``times`` another, or a request could never be answered.

    Attributes:
        follows: which of both has a default that holds to the other, where it is not given.
    """

    value: str
    least: str
    times: int = 1
    follows: str = ""


RELATIONS = (
    Relation("max_queue", "max_batch"),
    Relation("max_memory_bytes", "max_body_bytes", _BODIES, follows="max_memory_bytes"),
    Relation("timeout_s", "max_work_s", follows="max_work_s"),
)
"""Settings that have to agree; the chart holds its values to the same."""


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the variables.

    Raises:
        UsageError: naming the variable, its value and what is allowed.
    """
    default = Settings(model=BUNDLED_MODEL if BUNDLED_MODEL.is_dir() else MOUNTED_MODEL)
    given = Variables(environment, PREFIX)
    number, seconds, choice = given.number, given.seconds, given.choice
    timeout_s = seconds("TIMEOUT_S", default.timeout_s, 0.1)
    max_body_bytes = number("MAX_BODY_BYTES", default.max_body_bytes, 1024)
    max_memory_bytes = max(default.max_memory_bytes, _BODIES * max_body_bytes)
    settings = Settings(
        model=given.path("MODEL") or default.model,
        index=given.path("INDEX"),
        model_digest=given.digest("MODEL_DIGEST"),
        model_signed_by=given.path("MODEL_SIGNED_BY"),
        precision=choice("PRECISION", default.precision, PRECISIONS),
        threads=number("THREADS", available_cpus(), 1),
        max_body_bytes=max_body_bytes,
        max_pixels=number("MAX_PIXELS", default.max_pixels, 1),
        max_batch=number("MAX_BATCH", default.max_batch, 1),
        micro_batch=number("MICRO_BATCH", 0, 1) or None,
        max_inputs=number("MAX_INPUTS", default.max_inputs, 1),
        max_queue=number("MAX_QUEUE", default.max_queue, 1),
        max_prompts=number("MAX_PROMPTS", default.max_prompts, 1),
        max_characters=number("MAX_CHARACTERS", default.max_characters, 1),
        max_memory_bytes=number("MAX_MEMORY_BYTES", max_memory_bytes, 2**20),
        max_work_s=seconds("MAX_WORK_S", min(default.max_work_s, timeout_s / 3), 0.01),
        formats=_formats(given, default.formats),
        jpeg=choice("JPEG", default.jpeg, ("reduced", "exact")),
        timeout_s=timeout_s,
        list_timeout_s=seconds("LIST_TIMEOUT_S", max(default.list_timeout_s, timeout_s), timeout_s),
        body_idle_s=seconds("BODY_IDLE_S", default.body_idle_s, 0.1),
        header_s=seconds("HEADER_S", default.header_s, 0.1),
        idle_s=seconds("IDLE_S", default.idle_s, 0.1),
        max_header_bytes=number("MAX_HEADER_BYTES", default.max_header_bytes, 1024),
        max_connections=number("MAX_CONNECTIONS", default.max_connections, 1),
        hang_s=seconds("HANG_S", default.hang_s, 1),
        hold_s=seconds("HOLD_S", default.hold_s, 0),
        drain_s=seconds("DRAIN_S", default.drain_s, 0),
        keys_file=given.path("KEYS_FILE"),
        keys=given.text("KEYS"),
        metrics=choice("METRICS", default.metrics, ("open", "key", "off")),
        cors_origins=_origins(given),
        log_format=choice("LOG_FORMAT", default.log_format, ("console", "json")),
        access_log=choice("ACCESS_LOG", "off", ("on", "off")) == "on",
        otlp_endpoint=_otlp_endpoint(given, environment),
        provider=choice("PROVIDER", default.provider, _PROVIDERS),
        provider_options=_provider_options(given),
        mirror_url=given.text("MIRROR_URL") and given.address("MIRROR_URL", path=False),
        mirror_share=given.share("MIRROR_SHARE", default.mirror_share),
        cache_bytes=number("CACHE_BYTES", default.cache_bytes, 0),
        trace_ratio=given.share("TRACE_RATIO", default.trace_ratio),
        aliases=given.listed("ALIASES"),
        dimensions=given.numbers("DIMENSIONS"),
        url_hosts=_hosts(given),
        url_s=seconds("URL_S", default.url_s, 0.1),
    )
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    """Refuse settings that, together, leave no request that could be answered."""
    for one in RELATIONS:
        value, least = getattr(settings, one.value), one.times * getattr(settings, one.least)
        if value < least:
            other = one.least.upper() + (f", times {one.times}" if one.times > 1 else "")
            raise UsageError(
                f"{PREFIX}{one.value.upper()}={value:.12g}: allowed: at least {least:.12g} "
                f"({PREFIX}{other}), or such a request could never be answered"
            )


def _formats(given: Variables, default: tuple[str, ...]) -> tuple[str, ...]:
    """Names of formats, separated by commas."""
    names = given.words("FORMATS", default, FORMATS)
    if "heic" in names and find_spec("pillow_heif") is None:
        what = "pillow-heif is missing; pip install 'ptft[heic]'"
        raise given.wrong("FORMATS", "heic", what)
    return names


def _hosts(given: Variables) -> tuple[str, ...]:
    found = given.listed("URL_HOSTS")
    for name in found:
        try:
            host_of(name)
        except ValueError as error:
            raise given.wrong("URL_HOSTS", name, str(error)) from None
    return found


def _origins(given: Variables) -> tuple[str, ...]:
    """Origins as browsers send them, or ``*``."""
    name = "CORS_ORIGINS"
    found = given.listed(name)
    if "*" in found and found != ("*",):
        raise given.wrong(name, ",".join(found), "allowed: * alone, or origins")
    for one in found:
        if one != "*":
            given.address(name, one, path=False)
    return found


def _otlp_endpoint(given: Variables, environment: Mapping[str, str]) -> str:
    """Where traces go; empty for nowhere."""
    own, standard = given.text("OTLP_ENDPOINT"), environment.get(OTLP_ENDPOINT, "").strip()
    if own:
        given.address("OTLP_ENDPOINT", path=True)
    elif standard:
        Variables(environment, "").address(OTLP_ENDPOINT, path=True)
    found = own or standard
    if found and not _is_there("opentelemetry.exporter.otlp.proto.http"):
        what = "the exporter is missing; pip install opentelemetry-exporter-otlp-proto-http"
        raise given.wrong("OTLP_ENDPOINT", found, what)
    return found


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it would be in
        return False


def _provider_options(given: Variables) -> tuple[tuple[str, str], ...]:
    found = given.pairs("PROVIDER_OPTIONS")
    if found and given.text("PROVIDER") not in ("cuda", "tensorrt", "openvino"):
        what = "allowed: with PTFT_PROVIDER=cuda, tensorrt or openvino"
        raise given.wrong("PROVIDER_OPTIONS", given.text("PROVIDER_OPTIONS"), what)
    return tuple(found.items())


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
