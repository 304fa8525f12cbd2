"""Everything that ptft raises on purpose, in one tree::

    PtftError                  exit 1: something went wrong that the message explains
    ├── UsageError             exit 2: the command line asks for something that does not exist
    │   └── RecipeError        exit 2: a key, a value or a file that a recipe names
    ├── DataError              a sample set cannot be read
    │   └── SampleError        one sample cannot be read (counted, named and skipped)
    ├── ModelError             an architecture or weights that do not fit
    │   └── AdaptError         ... an adapter that does not fit, does not train or does not merge
    ├── ArtifactError          a folder is not the run or model folder that it should be
    │   ├── DigestError        ... its bytes are not the ones that were recorded
    │   └── SignatureError     exit 3: ... it is not signed with the key that is asked for
    ├── CheckpointError        a checkpoint cannot be written or read back
    ├── TrainingError          training cannot go on (a loss that is not finite, say)
    │   ├── MirrorError        ... its mirror cannot be reached, or is too far behind
    │   └── LostRankError      exit 76: ... another rank is gone; start this one again
    ├── ExportError            a model cannot be exported
    │   └── ParityError        ... an exported file does not give the model's own outputs
    ├── HubError               the Hub refused, or could not be reached
    ├── LaunchError            the client of a cluster is absent, or refused a job
    └── MissingExtraError      an optional dependency is not installed

A message names the key or file, the value, and what is allowed.
"""

import difflib
from collections.abc import Iterable
from typing import Literal

from ptft.printable import printable

__all__ = [
    "FAULTS",
    "AdaptError",
    "ArtifactError",
    "CheckpointError",
    "DataError",
    "DigestError",
    "ExportError",
    "Fault",
    "HubError",
    "LaunchError",
    "LostRankError",
    "MirrorError",
    "MissingExtraError",
    "ModelError",
    "ParityError",
    "PtftError",
    "RecipeError",
    "SampleError",
    "ServiceBusyError",
    "ServiceError",
    "ServiceRefusedError",
    "ServiceUnreachableError",
    "SignatureError",
    "TrainingError",
    "UsageError",
    "suggest",
]


Fault = Literal["corrupt", "empty", "oversized", "mislabelled", "unreadable"]
"""What is wrong with a sample."""

FAULTS: dict[Fault, str] = {
    "corrupt": "its bytes are no whole picture, no text, or no JSON",
    "empty": "it has no picture, no caption or no label, or an empty one",
    "oversized": "its picture has more pixels than data.max_pixels",
    "mislabelled": "its label is not among the classes",
    "unreadable": "the disk, or the table that it is in, does not give it",
}
"""Each fault and what it means."""


class PtftError(Exception):
    """Base of all errors that ptft raises on purpose; ``exit_code`` is the command's.

    Args:
        lines: of the message. Each stays one line, whatever names are in it.
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(printable(str(line)) for line in self.args)


class UsageError(PtftError):
    """The command line names something that does not exist."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key, a value out of range, or names a file that is absent."""


class DataError(PtftError):
    """A sample set cannot be read at all."""


class SampleError(DataError):
    """One sample cannot be read; the loop counts it, names it and goes on.

    Args:
        message: names the sample and says why.
        fault: by which it is counted, see ``FAULTS``.
    """

    def __init__(self, message: str, fault: Fault = "corrupt") -> None:
        super().__init__(message)
        self.fault: Fault = fault


class ModelError(PtftError):
    """An architecture, or weights that do not fit it."""


class AdaptError(ModelError):
    """An adapter that does not fit the model, does not train, or changes it when merged."""


class ArtifactError(PtftError):
    """A folder lacks what a run or model folder must hold."""


class DigestError(ArtifactError):
    """The bytes of a file are not the ones that were recorded."""


class SignatureError(ArtifactError):
    """A model folder without a signature of the key that is asked for, or one that it breaks."""

    exit_code = 3  # the same again, however often it is tried


class CheckpointError(PtftError):
    """A checkpoint cannot be written, or none that is complete can be read."""


class TrainingError(PtftError):
    """Training cannot go on."""


class MirrorError(TrainingError):
    """The mirror of a run cannot be read or written, or is too far behind."""


class LostRankError(TrainingError):
    """Another rank, or its machine, is gone; what is wrong, if anything is, is wrong there."""

    exit_code = 76  # EX_PROTOCOL of sysexits.h: the remote system


class ExportError(PtftError):
    """A model cannot be exported as asked."""


class ParityError(ExportError):
    """An exported file does not give the outputs of the model it came from."""


class HubError(PtftError):
    """The Hub refused a request or could not be reached."""


class ServiceError(PtftError):
    """A running service gave no answer.

    Args:
        message: what it said.
        status: of HTTP; 0 where nothing came back.
        code: the service's word for it, such as ``too_many_items``.
        param: the key of the request that it is about, if it is one's fault.
        request_id: by which the service's log has it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        param: str | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id


class ServiceRefusedError(ServiceError):
    """The request is wrong: it will be refused again."""


class ServiceBusyError(ServiceError):
    """The service has too much to do, is not ready, or serves another model than the one asked for;
    it was asked as often as it may be."""


class ServiceUnreachableError(ServiceError):
    """Nothing came back: no connection, or none that lasted."""


class LaunchError(PtftError):
    """The client of a cluster is not installed here, or refused a job."""


class MissingExtraError(PtftError):
    """An optional dependency is absent; the message is the line that installs it.

    Args:
        package: the module that could not be imported.
        extra: the extra of ptft that brings it, such as ``serve``.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; run: pip install '.[{extra}]' (in ptft's checkout; of a "
            f"wheel: pip install 'ptft-VERSION-py3-none-any.whl[{extra}]')"
        )


_MOST_WORD = 256  # characters that are compared, which takes their square


def suggest(word: str, allowed: Iterable[str]) -> str:
    """A sentence that offers the near misses of ``word``, or lists what is allowed.

    Returns a string that starts with a space-free clause, to be appended to a message:
    ``"did you mean 'cosine'?"`` or ``"allowed: constant, cosine"``.
    """
    choices = sorted(set(allowed))
    near = difflib.get_close_matches(word[:_MOST_WORD], choices, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"allowed: {shown}" if choices else "nothing is allowed here"
