"""The gate: a release is asked, then the one that runs now, and every bound is held."""

import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ptft.artifact import read_model_info
from ptft.errors import UsageError
from ptft.gate.answering import Answering, FolderAnswers, ServiceAnswers
from ptft.gate.bounds import GateBound
from ptft.gate.checks import Check
from ptft.gate.figures import agreement, nearest_texts, owners, probe_accuracy, probe_recall
from ptft.gate.probe_set import ProbeSet
from ptft.gate.watch import watch
from ptft.hub.pull import pull_model
from ptft.model_source import HubRevision, ModelFolder, resolve
from ptft.onnx.golden import read_golden
from ptft.signing import check_signature
from ptft.speech import tell

__all__ = ["gate"]

_ALLOWED = "a model folder, org/repo@revision or http://..."


@dataclass(frozen=True)
class _Asked:
    """What a release made of the probe set.

    Attributes:
        figures: by name.
        answers: of each picture, to be compared with another release's.
    """

    figures: dict[str, float]
    answers: Sequence[object]


def gate(
    model: str,
    *,
    digest: str | None = None,
    signed_by: Path | None = None,
    probe: ProbeSet | None = None,
    bounds: Sequence[GateBound] = (),
    live: str | None = None,
    seconds: float = 0.0,
    precision: str = "fp32",
    threads: int = 1,
    api_key: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Check]:
    """Hold a release against its digest, its golden embeddings and bounds on its figures.

    Args:
        model: a model folder or ``org/repo@revision``, run here; or ``http://...``, a service.
        digest: that the model has to have.
        signed_by: a public key (PEM) by which a model that is run here has to be signed.
        probe: a small set of the user's own.
        bounds: see :class:`ptft.gate.GateBound`.
        live: the service that runs now; ``drop`` and ``agreement`` are held against its answers.
        seconds: of watching both services, for the bounds of kind ``at-most``.
        precision, threads: of a model that is run here.
        api_key: of both services.
        progress: told what is being asked.

    Returns:
        What was held, in order; after a digest that is another's nothing more is asked.

    Raises:
        UsageError: a bound that nothing given can hold, or ``model`` is none of these.
        ArtifactError, DigestError: a model that cannot be run, or damaged bytes.
        SignatureError: the model is not signed with the key; it was not run.
        ServiceError: a service gives no answer.
        DataError: a picture of the probe set cannot be read.
        HubError: the Hub refused or cannot be reached.
    """
    say = progress or tell
    _check_asked(model, probe, bounds, live, seconds)
    if signed_by is not None and _is_url(model):
        raise UsageError(
            f"--require-signature {signed_by}: of a model that is run here, not {model}"
        )
    with ExitStack() as stack:
        say(f"{model}: reading it")
        checks = []
        release: FolderAnswers | ServiceAnswers
        if _is_url(model):
            release = service = ServiceAnswers(model, api_key)
            stack.callback(service.close)
        else:
            folder = _folder(model, signed_by)
            if signed_by is not None:  # before anything of it is run
                key = check_signature(folder, read_model_info(folder), signed_by, where=model)
                checks.append(Check("signature", True, f"by key {key}"))
            release = FolderAnswers(folder, precision, threads)
        checks.append(_digest(release, digest))
        if not checks[-1].ok:
            return checks
        say(f"{model}: running its golden inputs")
        checks.append(release.golden())
        own = _ask(release, probe, say, model) if probe is not None else None
        now = None
        if live is not None:
            now = ServiceAnswers(live, api_key)
            stack.callback(now.close)
            checks.append(Check("live", True, f"{live} serves {now.digest}"))
        theirs = _ask(now, probe, say, str(live)) if now is not None and probe is not None else None
        figures = dict(own.figures) if own else {}
        if now is not None:
            figures["agreement"] = _agreement(model, release, now, own, theirs)
        before = theirs.figures if theirs else {}
        checks += _hold(figures, before, [one for one in bounds if one.kind != "at-most"])
        if seconds and isinstance(release, ServiceAnswers) and now is not None:
            say(f"{model}: watching it beside {live} for {seconds:g} s")
            ask = _asking(probe, release, now)
            most = [one for one in bounds if one.kind == "at-most"]
            checks += watch(release.url, now.url, seconds, most, ask, api_key)
        return checks


def _check_asked(
    model: str,
    probe: ProbeSet | None,
    bounds: Sequence[GateBound],
    live: str | None,
    seconds: float,
) -> None:
    is_service = _is_url(model)
    if live is not None and not _is_url(live):
        raise UsageError(f"--live {live}: allowed: http://... or https://...")
    if seconds and (live is None or not is_service):
        raise UsageError("--watch needs two services: http://... and --live http://...")
    for one in bounds:
        option = f"--{one.kind} {one.name}={one.value:g}"
        if one.kind == "at-most" and not seconds:
            raise UsageError(f"{option} is of running services; --watch SECONDS is needed for it")
        if one.name == "agreement":
            if live is None:
                raise UsageError(f"{option} is with the live release; --live is needed for it")
            if probe is None and is_service:
                raise UsageError(f"{option} of a service needs --probe")
        elif one.kind != "at-most":
            if probe is None:
                raise UsageError(f"{option} is a figure of a probe set; --probe is needed for it")
            if one.kind == "drop" and live is None:
                raise UsageError(f"{option} is below the live release; --live is needed for it")
            kinds = ("top1", "mean_per_class")
            if (one.name in kinds) != (probe.labels is not None):
                what = "labels" if probe.labels is not None else "captions"
                raise UsageError(f"{option}: the probe set has {what}, which give no {one.name}")


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _folder(model: str, signed_by: Path | None) -> Path:
    match resolve(model, error=UsageError, allowed=_ALLOWED):
        case ModelFolder(folder):
            return folder
        case HubRevision():
            return pull_model(model, signed_by=signed_by)
        case _:
            raise UsageError(f"{model}: allowed: {_ALLOWED}")


def _digest(release: Answering, wanted: str | None) -> Check:
    if wanted is None or wanted == release.digest:
        return Check("digest", True, release.digest)
    return Check("digest", False, f"is {release.digest}; allowed: {wanted}")


def _ask(release: Answering, probe: ProbeSet, say: Callable[[str], None], name: str) -> _Asked:
    say(f"{name}: asking it about {len(probe.pictures):,} pictures of the probe set")
    if probe.labels is not None:
        found = release.classes(probe.names, probe.pictures, probe.classes)
        return _Asked(probe_accuracy(found, probe.labels), found)
    images_nd = release.images(probe.names, probe.pictures)
    texts_md = release.texts([text for own in probe.captions for text in own])
    figures = probe_recall(images_nd, texts_md, owners(probe))
    return _Asked(figures, nearest_texts(images_nd, texts_md).tolist())


def _agreement(
    model: str,
    release: Answering,
    now: ServiceAnswers,
    own: _Asked | None,
    theirs: _Asked | None,
) -> float:
    """On the probe set; without one on the golden inputs: the text that a picture is nearest to."""
    if own is not None and theirs is not None:
        return agreement(own.answers, theirs.answers)
    if not isinstance(release, FolderAnswers) or now.about.texts == "refused":
        return float("nan")
    golden = read_golden(release.folder)
    names = [f"golden {at}" for at in range(len(golden.pixels))]
    pictures = [_png(pixels) for pixels in golden.pixels]
    found = [
        nearest_texts(one.images(names, pictures), one.texts(list(golden.texts))).tolist()
        for one in (release, now)
    ]
    return agreement(*found)


def _png(pixels: "np.ndarray") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _hold(
    figures: dict[str, float], before: dict[str, float], bounds: Sequence[GateBound]
) -> list[Check]:
    """Every figure, with each bound that it has."""
    checks = []
    for name, value in figures.items():
        own = [one for one in bounds if one.name == name]
        for one in own:
            least, words = one.value, f"at least {one.value:.4g}"
            if one.kind == "drop":
                least = before[name] - one.value
                words = f"at least {least:.4g}, {one.value:.4g} below the live release's"
                words += f" {before[name]:.4g}"
            # a share of pictures is exact; 1e-9 is of the subtraction
            checks.append(Check(name, value >= least - 1e-9, f"{value:.4g}; allowed: {words}"))
        if not own and not np.isnan(value):
            beside = f"; live: {before[name]:.4g}" if name in before else ""
            checks.append(Check(name, True, f"{value:.4g}{beside}; no bound"))
    return checks


def _asking(
    probe: ProbeSet | None, release: ServiceAnswers, now: ServiceAnswers
) -> Callable[[], None]:
    """Ask both for the same, one after the other, so that a machine's load is both's."""

    grey = _png(np.full((64, 64, 3), 128, np.uint8))
    pictures = "refused" in (release.about.texts, now.about.texts)

    def ask() -> None:
        for one in (release, now):
            if probe is None and pictures:
                one.images(["a grey picture"], [grey])
            elif probe is None:
                one.texts(["a"])
            else:
                one.images(probe.names[:16], probe.pictures[:16])

    return ask
