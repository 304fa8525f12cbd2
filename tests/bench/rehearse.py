"""The whole step on a second device that torch is made to see: a GPU's mistakes, without one.

Each case is a run on the CPU and the same run on the second device of
``tests/support/second_device.py``, from the data to the model that it leaves. There, tensors on two
devices do not meet, what makes a host wait for its device is counted, and a copy that is to go on
must start from pinned memory. A step may wait once per ``run.log_every``, for its figures. The
weights must be the CPU's: the same kernels compute, so a difference is another way through the code
(within rounding where layouts, the grouping of texts or, with FSDP2, the order of sums differ).
FSDP2 is two ranks with such a device each. A run of the device is then exported beside the CPU's.

``run.compile`` is rehearsed apart: torch's compiler follows each kind of block forward and back on
a device that has no numbers, where a break in the graph is what would wait.

Not rehearsed: kernels and their rounding, speed, memory, the order of streams, NCCL, DDP, triton.
"""

import tempfile
from pathlib import Path

from tests.support.rehearsal import CASES, rehearse, rehearse_export
from tests.support.rehearsal_compiled import COMPILED, rehearse_compiled
from tests.support.runs import run as trained
from tests.support.tiny import arch_section

BARS = {
    "cases": (">=", len(CASES)),
    "max_abs_dw": ("<=", 1e-5),
    "unasked_waits": ("<=", 0),
    "pageable_copies": ("<=", 0),
    "exported_max_abs_difference": ("<=", 1e-5),
    "compiled_cases": (">=", len(COMPILED)),
    "graph_breaks": ("<=", 0),
}

_EXPORTED = "LoRA"
_COMPILED = "texts with padding"


def run(*, smoke: bool = False) -> dict[str, float]:
    rows = {}
    print(
        f"{'case':<26}{'operations':>11}{'waits':>7}{'unasked':>9}{'pageable':>10}{'max |dW|':>11}"
    )
    with tempfile.TemporaryDirectory() as place:
        arch_section()  # so that open_clip knows the small architectures
        trained(Path(place) / "base")
        for case in [_EXPORTED] if smoke else CASES:
            row = rows[case] = rehearse(Path(place) / f"{len(rows)}", Path(place) / "base", case)
            print(
                f"{case:<26}{row.calls:>11,}{row.waited:>7}{len(row.unasked):>9}"
                f"{len(row.pageable):>10}{row.difference:>11.1e}",
                flush=True,
            )
            for line in sorted({*row.unasked, *row.pageable}):
                print(f"    {line}")
        exported = rehearse_export(Path(place) / f"{[*rows].index(_EXPORTED)}")
    print(f"{_EXPORTED}, exported: largest difference of weights and embeddings {exported:.1e}")
    compiled = {}
    for case in [_COMPILED] if smoke else COMPILED:
        found = compiled[case] = rehearse_compiled(case)
        print(f"compiled, {case}: {found.graphs} graphs, {len(found.breaks)} breaks", flush=True)
        for line in found.breaks:
            print(f"    {line.splitlines()[0]}")
    return {
        "cases": len(rows),
        "max_abs_dw": max(row.difference for row in rows.values()),
        "unasked_waits": sum(len(row.unasked) for row in rows.values()),
        "pageable_copies": sum(len(row.pageable) for row in rows.values()),
        "exported_max_abs_difference": exported,
        "compiled_cases": len(compiled),
        "graph_breaks": sum(len(found.breaks) for found in compiled.values()),
    }
