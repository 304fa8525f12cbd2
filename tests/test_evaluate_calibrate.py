"""Calibration error and temperature, held against loops and a known answer."""

import numpy as np
import torch

from ptft.evaluate.accuracy import calibration_error
from ptft.evaluate.calibrate import expected_calibration_error, fit_temperature


def drawn(temperature: float, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose labels are drawn from their softmax at ``temperature``."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 7, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, torch.nn.functional.one_hot(labels, 7).bool()


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
