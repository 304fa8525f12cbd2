"""``/v1/about``, ``/v1/golden`` and ``/v1/drift``: what people want to know of a model before they
trust it.

The first says what it came from, with its card; the second runs the golden inputs, now, through the
queues that all requests go through; the third says how far traffic has moved from training.
"""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field
from starlette.responses import Response

from ptft.artifact import FolderFiles, ModelInfo, verify_files
from ptft.errors import ArtifactError, PtftError
from ptft.files.bounds import read_bytes
from ptft.model_record import read_mix
from ptft.onnx.golden import Golden, allowed, compare_golden, read_golden
from serving.admission import Cost
from serving.asked import Asked
from serving.drift import JUDGED, WINDOW_S, Movement
from serving.encoder import Encoder
from serving.refusal import Refusal
from serving.state import json_bytes

__all__ = ["About", "GoldenCheck", "GoldenHeld", "about", "drift", "golden", "shown_card"]

_CARD_BYTES = 1 << 18  # of a card that is shown; the longest that ptft writes has 20 kB
_FRESH_S = 60.0  # a golden check that is so old is told again


class Ancestor(BaseModel):
    """What the model came from, or it itself."""

    what: str
    digest: str


class About(BaseModel):
    """What the model came from, and what its card says."""

    model: str
    digest: str
    logit_scale: Annotated[float, Field(description="multiplies cosines before a softmax")]
    logit_bias: Annotated[float, Field(description="is added to them before a sigmoid")]
    lineage: Annotated[list[Ancestor], Field(description="the first made the second, and so on")]
    index: Annotated[int | None, Field(description="rows of the index; null where none is")]
    card: Annotated[str, Field(description="Markdown as it lies in the folder; empty without")]


class Held(BaseModel):
    """One golden tensor, and what was made of the same inputs here."""

    what: str
    worst: float
    allowed: float
    holds: bool


class GoldenHeld(BaseModel):
    """Golden inputs that were run here, against what the checkpoint made of them."""

    model: str
    digest: str
    precision: str
    pictures: int
    texts: int
    age_s: int
    holds: bool
    checks: list[Held]


async def about(asked: Asked) -> Response:
    """Answer with what a model folder records of itself."""
    count = None if asked.index is None else asked.index.info.count
    found = await asyncio.to_thread(_read, asked.settings.model, asked.encoder.model.info, count)
    return Response(json_bytes(found.model_dump()), media_type="application/json")


def _read(folder: Path, info: ModelInfo, index: int | None) -> About:
    lineage = [Ancestor(what="recipe", digest=info.recipe_digest)]
    if info.published_recipe:
        what = "recipe as it is published, without folders of the machine"
        lineage.append(Ancestor(what=what, digest=info.published_recipe))
    lineage += _parents(folder, info)
    lineage += [
        Ancestor(what="weights", digest=info.weights_digest),
        Ancestor(what="model folder", digest=info.digest),
    ]
    return About(
        model=info.name,
        digest=info.digest,
        logit_scale=info.logit_scale,
        logit_bias=info.logit_bias,
        lineage=lineage,
        index=index,
        card=shown_card(folder / FolderFiles.CARD),
    )


def _parents(folder: Path, info: ModelInfo) -> list[Ancestor]:
    """Of a mix, once its record is seen to be the one that was written."""
    if FolderFiles.MIX not in info.files:
        return []
    try:
        verify_files(folder, {FolderFiles.MIX: info.files[FolderFiles.MIX]}, remember=True)
        parents = read_mix(folder).parents
    except PtftError:  # it is no file that the service needs
        return [Ancestor(what=f"{FolderFiles.MIX}: absent or changed", digest="")]
    return [
        Ancestor(what=f"{one.share:.0%} of {one.hub or one.name}", digest=one.weights_digest)
        for one in parents
    ]


def shown_card(path: Path) -> str:
    """The card; nobody vouches for its bytes, so it is only ever shown as text."""
    if not path.resolve().is_relative_to(path.parent.resolve()):
        return f"{path.name}: a link that leads out of the folder"
    try:
        return read_bytes(path, limit=_CARD_BYTES, error=ArtifactError).decode(errors="replace")
    except ArtifactError as error:
        return _named(error, path.parent) if path.exists() else ""


def _named(error: PtftError, folder: Path) -> str:
    """What is wrong with a file of a folder, without where that lies."""
    return str(error).replace(f"{folder}/", "")


async def golden(asked: Asked) -> Response:
    """Answer with the golden check of the worker."""
    check: GoldenCheck = asked.request.app.state.golden_check
    return await check.answer(asked)


async def drift(asked: Asked) -> Response:
    """Answer with how far traffic has moved from training."""
    info, own = asked.encoder.model.info, asked.drift
    found = Movement(
        model=info.name,
        digest=info.digest,
        window_s=WINDOW_S,
        judged_from=JUDGED,
        reason=own.reason,
        kinds=own.read(),
        classes=own.read_classes(info.classes),
    )
    return Response(json_bytes(found.model_dump()), media_type="application/json")


class GoldenCheck:
    """The golden check of a worker, made when somebody asks, at most once a minute."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._made = 0.0
        self._found: GoldenHeld | None = None

    async def answer(self, asked: Asked) -> Response:
        """Answer with it.

        Raises:
            Refusal: 422 where the golden file cannot be read any longer.
        """
        async with self._lock:
            if self._found is None or time.monotonic() - self._made > _FRESH_S:
                self._found = await _hold(asked)
                self._made = time.monotonic()
            age = int(time.monotonic() - self._made)
            found = self._found.model_copy(update={"age_s": age})
        return Response(json_bytes(found.model_dump()), media_type="application/json")


async def _hold(asked: Asked) -> GoldenHeld:
    encoder, info = asked.encoder, asked.encoder.model.info
    try:
        golden = await asyncio.to_thread(read_golden, asked.settings.model)
        differences = await _run(asked, encoder, golden)
    except PtftError as error:
        raise Refusal(422, "golden", _named(error, asked.settings.model)) from None
    precision = encoder.model.precision
    checks = [
        Held(
            what=key,
            worst=worst,
            allowed=allowed(key, precision),
            holds=worst <= allowed(key, precision),
        )
        for key, worst in differences.items()
    ]
    return GoldenHeld(
        model=info.name,
        digest=info.digest,
        precision=precision,
        pictures=len(golden.pixels),
        texts=len(golden.texts),
        age_s=0,
        holds=all(one.holds for one in checks),
        checks=checks,
    )


async def _run(asked: Asked, encoder: Encoder, golden: Golden) -> dict[str, float]:
    """What ``ptft.onnx.golden.run_onnx`` does, by the queues of the service."""
    ticket, texts = asked.ticket, list(golden.texts)
    lengths = [len(text) for text in texts]
    pictures = len(golden.pixels)
    ticket.charge(
        encoder.cost_of_texts(len(texts), sum(lengths), max(lengths))
        + Cost(
            items=pictures + len(texts),
            memory=golden.pixels.nbytes,
            work=pictures
            * sum(one.seconds_a_unit for one in encoder.towers if one is not encoder.texts),
        )
    )
    asked.watch()
    golden.check_tokens(encoder.model.tokenizer(texts))
    images = await asyncio.gather(*(encoder.embed(ticket, one) for one in golden.pixels))
    rows = await encoder.encode_texts(ticket, texts)
    places = None
    if encoder.places is not None:
        looked = encoder.places.submit(ticket, list(golden.pixels), phases=ticket.phases)
        places = np.stack(await asyncio.gather(*looked))
    return compare_golden(encoder.model, golden, np.stack(images), np.stack(rows), places)
