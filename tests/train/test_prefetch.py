"""Batches on their way to the device: all of them, in order, one ahead."""

from collections.abc import Iterator

import torch

from ptft.data import Batch
from ptft.train.batches import copy_ahead, one_ahead


def test_the_next_is_sent_before_one_is_received() -> None:
    told: list[str] = []

    def source() -> Iterator[int]:
        try:
            for number in range(3):
                told.append(f"read {number}")
                yield number
        finally:
            told.append("closed")

    def send(number: int) -> int:
        told.append(f"send {number}")
        return number

    def receive(number: int) -> int:
        told.append(f"receive {number}")
        return number

    for number in one_ahead(source(), send, receive):
        told.append(f"use {number}")
    assert told == [
        *("read 0", "send 0", "read 1", "send 1", "receive 0", "use 0"),
        *("read 2", "send 2", "receive 1", "use 1"),
        *("closed", "receive 2", "use 2"),
    ]
    told.clear()
    leaving = one_ahead(source(), send, receive)
    assert next(leaving) == 0
    leaving.close()  # type: ignore[attr-defined]
    assert told[-1] == "closed"
    assert list(one_ahead((number for number in ()), send, receive)) == []


def test_on_a_cpu_batches_are_handed_on_as_they_are() -> None:
    batches = [
        Batch(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), None, None, None, ["a", "b"], [])
        for _ in range(3)
    ]
    found = list(copy_ahead(iter(batches), torch.device("cpu")))
    assert all(one is other for one, other in zip(found, batches, strict=True))
