"""``python3 -m ptft.launch.ranks``: torchrun, with the exit code of the ranks as its own.

torchrun ends with 1 whatever its ranks end with, so that a launcher cannot tell a run that saved
and is to be started again (75, 143), or that lost another machine (76), from one that failed. This
takes torchrun's own arguments. Nothing is restarted here: the launcher starts the job again, and
``--resume auto`` goes on.
"""

import os
import sys
from collections.abc import Sequence

from ptft.errors import LostRankError

__all__ = ["run_ranks"]

_SIGNALLED = 143  # of a run that a signal stopped after a checkpoint, whichever signal it was


def run_ranks(arguments: Sequence[str]) -> int:
    """Run torchrun in this process.

    Args:
        arguments: torchrun's.

    Returns:
        0; the exit code of the rank that ended first with another, but for 76 only where no rank
        here ended otherwise: it says that the fault is another's; 143 where a signal ended all; 1
        where the machines did not meet.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import parse_args, run

    # A machine that comes later asks for the first one's address where torchrun, which keeps its
    # store over restarts, does not tell it again (torch 2.13); with a store a start it does.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        run(parse_args(list(arguments)))
    except SignalException as caught:
        print(f"ptft: the ranks were stopped by {caught.sigval.name}", file=sys.stderr)  # noqa: T201
        return _SIGNALLED
    except ChildFailedError as error:
        lost = LostRankError.exit_code
        failures = sorted(
            error.failures.values(), key=lambda one: (one.exitcode == lost, one.timestamp)
        )
        code = failures[0].exitcode
        return 128 - code if code < 0 else code
    except (DistError, RendezvousError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        print(f"ptft: the machines of the run did not meet: {said[0]}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_ranks(sys.argv[1:]))
