"""``objective.matryoshka``: its loss by a loop in float64, a run, its export, a service on it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from starlette.testclient import TestClient

from ptft.artifact import ModelInfo, read_model_info
from ptft.errors import RecipeError
from ptft.export import export_model
from ptft.objective import Features, check_widths, features_loss
from ptft.recipe import ClipObjective, SiglipObjective, recipe_digest
from ptft.recipe.load import deciding_values
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.server import wait_until_ready
from tests.support import runs

WIDTHS, N, D = [2, 4], 5, 6


def cosine(one: list[float], other: list[float], width: int) -> float:
    """Of the first dimensions, by hand."""
    one, other = one[:width], other[:width]
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths


def clip_by_hand(cosines: list[list[float]], scale: float, bias: float) -> float:
    total = 0.0
    for i in range(N):
        row = sum(math.exp(scale * cosines[i][j]) for j in range(N))
        column = sum(math.exp(scale * cosines[j][i]) for j in range(N))
        total += (math.log(row) + math.log(column)) / 2 - scale * cosines[i][i]
    return total / N


def siglip_by_hand(cosines: list[list[float]], scale: float, bias: float) -> float:
    signs = [[1 if i == j else -1 for j in range(N)] for i in range(N)]
    return (
        sum(
            math.log1p(math.exp(-signs[i][j] * (scale * cosines[i][j] + bias)))
            for i in range(N)
            for j in range(N)
        )
        / N
    )


@pytest.mark.parametrize(
    ("section", "by_hand"),
    [
        (ClipObjective(matryoshka=WIDTHS), clip_by_hand),
        (SiglipObjective(matryoshka=WIDTHS), siglip_by_hand),
    ],
)
def test_the_loss_equals_a_loop_in_float64(
    section: ClipObjective | SiglipObjective, by_hand: object
) -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, N, D, generator=generator, dtype=torch.float64)
    image, text = F.normalize(image).requires_grad_(), F.normalize(text)
    scale, bias = (torch.tensor([one], dtype=torch.float64) for one in (math.log(14.0), -3.0))
    features = Features(image, text, scale, bias, torch.arange(N))
    loss = features_loss(section, features).loss

    def expected(rows: list[list[float]]) -> float:
        total = 0.0
        for width in (*WIDTHS, D):
            cosines = [[cosine(x, y, width) for y in text.tolist()] for x in rows]
            total += by_hand(cosines, 14.0, -3.0)  # type: ignore[operator]
        return total / (len(WIDTHS) + 1)

    assert loss.item() == pytest.approx(expected(image.tolist()), rel=1e-12)
    loss.backward()
    assert image.grad is not None and bool(image.grad.abs().min() > 0)


def test_widths_are_below_the_embeddings_own_and_rise() -> None:
    with pytest.raises(RecipeError, match=r"objective\.matryoshka: 6; allowed: .* 6"):
        check_widths(ClipObjective(matryoshka=[2, 6]), 6)
    check_widths(ClipObjective(matryoshka=[2, 5]), 6)
    for wrong in ([4, 2], [2, 2], [0], []):
        with pytest.raises(ValueError, match="matryoshka"):
            ClipObjective(matryoshka=wrong)


def test_a_recipe_without_it_keeps_its_digest(tmp_path: Path) -> None:
    plain, cut = (
        recipe_digest(runs.recipe(tmp_path, objective__kind="clip", **more))
        for more in ({}, {"objective__matryoshka": [4]})
    )
    assert plain != cut
    values = runs.recipe(tmp_path).model_dump(mode="json")
    assert values["objective"]["matryoshka"] is None
    assert "matryoshka" not in deciding_values(runs.recipe(tmp_path))["objective"]


def test_a_run_its_export_and_the_service_that_cuts(tmp_path: Path) -> None:
    more = {"objective__kind": "clip", "objective__matryoshka": [4, 8], "evaluate": []}
    result = runs.run(tmp_path / "run", **more)
    info: ModelInfo = export_model(result.folder, tmp_path / "m", precisions=(), measure=False)
    assert info.matryoshka == read_model_info(tmp_path / "m").matryoshka == [4, 8]
    assert "first 4, 8 dimensions" in (tmp_path / "m" / "README.md").read_text()
    with TestClient(create_app(lambda: Settings(model=tmp_path / "m"))) as ask:
        wait_until_ready(ask)
        whole, cut, wrong = (
            ask.post("/v1/embeddings", json={"input": ["a red circle"], "dimensions": dimensions})
            for dimensions in (16, 4, 5)
        )
    row = np.array(whole.json()["data"][0]["embedding"])
    found = np.array(cut.json()["data"][0]["embedding"])
    np.testing.assert_allclose(found, row[:4] / np.linalg.norm(row[:4]), rtol=0, atol=1e-6)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "dimensions")
    assert "allowed: 4, 8, 16" in wrong.json()["error"]["message"]
