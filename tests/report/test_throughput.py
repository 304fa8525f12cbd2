"""Speed and time left, by a clock that the tests move."""

import pytest

from ptft.report.throughput import TrainingClock, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_evaluation_slows_no_training_but_takes_its_time() -> None:
    clock = Clock()
    training = TrainingClock(seen=0, total=1000, clock=clock)
    assert training.left is None
    with training.paused():
        clock.now += 60.0  # what comes before the first step comes once
    for step in range(1, 6):
        clock.now += 2.0
        assert training.step(step * 100) == pytest.approx(50.0)
    assert (training.seconds, training.left) == (pytest.approx(10.0), pytest.approx(10.0))
    with training.paused():
        clock.now += 5.0
    clock.now += 2.0
    assert training.step(600) == pytest.approx(50.0), "an evaluation is no training"
    assert training.seconds == pytest.approx(12.0)
    # 12 seconds of training took 17; 400 samples are 8 seconds of training more
    assert training.left == pytest.approx(8.0 * 17 / 12)


def test_a_slow_down_shows_within_twenty_steps() -> None:
    clock = Clock()
    training = TrainingClock(seen=0, total=10_000, clock=clock)
    for step in range(1, 61):
        clock.now += 1.0 if step <= 40 else 4.0
        speed = training.step(step * 8)
        assert step != 40 or speed == pytest.approx(8.0)
    assert speed == pytest.approx(2.0)


def test_a_resumed_run_adds_to_the_time_and_not_to_the_speed() -> None:
    clock = Clock()
    training = TrainingClock(seen=500, total=1000, seconds=70.0, clock=clock)
    assert (training.seconds, training.samples_per_second, training.left) == (70.0, 0.0, None)
    clock.now += 10.0
    assert training.step(600) == pytest.approx(10.0)
    assert (training.seconds, training.left) == (pytest.approx(80.0), pytest.approx(40.0))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (3e5, "3 d 11 h"),
    ],
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
