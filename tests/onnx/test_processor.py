"""Whose sums of 8-bit products saturate."""

import pytest

from ptft.onnx.processor import saturation_note, sums_saturate

OLD = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512bw\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", OLD, True),
        ("AMD64", OLD, True),
        ("x86_64", OLD.replace("avx512f", "avx512_vnni"), False),
        ("x86_64", OLD.replace("avx512f", "avx_vnni"), False),
        ("aarch64", "Features\t: fp asimd asimddp\n", False),
        ("x86_64", "", False),
    ],
)
def test_x86_without_vnni_saturates(machine: str, cpuinfo: str, expected: bool) -> None:
    assert sums_saturate(machine, cpuinfo) is expected


def test_other_precisions_are_not_the_processors_fault() -> None:
    assert saturation_note("fp32") == saturation_note("fp16") == ""
