"""What this machine's processor does to sums of 8-bit products.

onnxruntime adds pairs of them in 16 bits on x86 that has no VNNI, where they may saturate; the same
file gives other numbers on one that has. Source: onnxruntime's page on quantisation.
"""

import platform
from functools import cache
from pathlib import Path

__all__ = ["saturation_note", "sums_saturate"]

_X86 = frozenset({"x86_64", "AMD64"})
_EXACT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def sums_saturate(machine: str, cpuinfo: str) -> bool:
    """Whether sums of 8-bit products may saturate; False where that is not known.

    Args:
        machine: as ``platform.machine`` calls it.
        cpuinfo: the text of Linux's ``/proc/cpuinfo``.
    """
    flags = {
        flag
        for line in cpuinfo.splitlines()
        if line.partition(":")[0].strip() == "flags"
        for flag in line.partition(":")[2].split()
    }
    return machine in _X86 and bool(flags) and not flags & _EXACT


@cache
def saturation_note(precision: str) -> str:
    """What a message of a wrong answer says besides, of files of this precision on this machine;
    empty where the processor is not to blame."""
    if precision != "int8":
        return ""
    place = Path("/proc/cpuinfo")
    text = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else ""
    if not sums_saturate(platform.machine(), text):
        return ""
    return "; this processor has no VNNI and saturates sums of 8-bit products: use one that has"
