"""Calibration error and temperature, held against loops and a known answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ptft.data import open_split
from ptft.errors import RecipeError
from ptft.evaluate import embed_split
from ptft.evaluate.calibrate import fit_temperature
from ptft.evaluate.figures import calibration_error, expected_calibration_error
from ptft.model import load_model
from ptft.recipe import ScenesData
from ptft.runs.folder import read_run
from tests.support.runs import run


def drawn(temperature: float, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose labels are drawn from their softmax at ``temperature``."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 7, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, F.one_hot(labels, 7).bool()


def test_it_is_the_classifiers_calibration_error_where_one_candidate_is_right() -> None:
    logits, own = drawn(1.7)
    ours = expected_calibration_error(logits, own)
    assert abs(ours - calibration_error(logits, own.int().argmax(1))) < 1e-12


def test_it_is_the_sum_over_bins_written_out() -> None:
    logits, own = drawn(2.0, count=200)
    share = np.exp(logits.double().numpy())
    share /= share.sum(1, keepdims=True)
    error = 0.0
    for low in range(15):
        members = [q for q in range(200) if low / 15 < share[q].max() <= (low + 1) / 15]
        right = sum(bool(own[q, share[q].argmax()]) for q in members)
        error += abs(right - sum(share[q].max() for q in members)) / 200
    assert abs(expected_calibration_error(logits, own) - error) < 1e-9


def test_the_temperature_that_drew_the_labels_is_found() -> None:
    for temperature in (0.5, 1.0, 2.5):
        logits, own = drawn(temperature)
        assert abs(fit_temperature(logits, own) / temperature - 1) < 0.06


def test_scaling_at_least_halves_the_error_and_changes_no_prediction() -> None:
    logits, own = drawn(2.5)
    half = len(logits) // 2
    temperature = fit_temperature(logits[:half], own[:half])
    before = expected_calibration_error(logits[half:], own[half:])
    after = expected_calibration_error(logits[half:] / temperature, own[half:])
    assert after < 0.5 * before
    assert torch.equal(logits.argmax(1), (logits / temperature).argmax(1))


def test_several_right_candidates_count_together() -> None:
    logits = torch.tensor([[2.0, 2.0, 0.0]])
    own = torch.tensor([[True, True, False]])
    confidence = float(torch.softmax(logits.double(), 1).max())
    assert abs(expected_calibration_error(logits, own) - (1 - confidence)) < 1e-9


def test_a_runs_head_is_divided_by_the_temperature_of_val(tmp_path: Path) -> None:
    """Also where the model that is left is an average of weights."""
    given: dict[str, Any] = {
        "objective": {"kind": "classify", "head": "random"},
        "optim__ema": 0.5,
        "evaluate": [{"kind": "classify"}],
    }
    before = run(tmp_path / "plain", **given).metrics["classify"]
    given["objective"] = {**given["objective"], "calibrate": True}
    after = run(tmp_path / "calibrated", **given).metrics["classify"]
    plain, calibrated = (load_model(tmp_path / name) for name in ("plain", "calibrated"))
    assert plain.head is not None and calibrated.head is not None

    data = ScenesData(size=32, train=80, val=16, test=16)
    val = embed_split(plain, open_split(data, "val"), batch=16, workers=0)
    assert val.labels is not None
    with torch.no_grad():
        logits = plain.class_logits(val.inputs_nw)
    temperature = fit_temperature(logits, F.one_hot(val.labels, logits.shape[1]).bool())
    assert abs(temperature - 1.0) > 0.1, "else nothing shows"
    for name, tensor in plain.state_dict().items():
        wanted = tensor / temperature if name.startswith("head.") else tensor
        torch.testing.assert_close(calibrated.state_dict()[name], wanted, rtol=1e-5, atol=1e-7)
    assert after["top1"] == before["top1"]
    assert after["ece"] != before["ece"], "what is reported is the model that is left"
    (note,) = (n for n in read_run(tmp_path / "calibrated").notes if "calibrated" in n)
    assert f"temperature {temperature:.3g}" in note


def test_calibration_without_validation_is_refused_before_the_run(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / "0.png")
    data = {"kind": "folder", "train": str(tmp_path / "data")}
    objective = {"kind": "classify", "calibrate": True}
    with pytest.raises(RecipeError, match=r"data\.val: missing"):
        run(tmp_path / "run", data=data, objective=objective)
    assert not (tmp_path / "run").exists()
