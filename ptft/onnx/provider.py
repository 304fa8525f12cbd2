"""Where onnxruntime runs a model: on which of its execution providers, and with what options."""

from dataclasses import dataclass

import onnxruntime as ort

from ptft.errors import UsageError

__all__ = ["ON_GPU", "PROVIDERS", "Provider"]

PROVIDERS: dict[str, tuple[str, str]] = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
}
"""Name -> onnxruntime's own, and the package that has it."""

ON_GPU = (PROVIDERS["cuda"][0], PROVIDERS["tensorrt"][0])
"""onnxruntime's names of those."""

_BEHIND = {"tensorrt": ("cuda", "cpu"), "cuda": ("cpu",), "openvino": ("cpu",), "cpu": ()}
"""What runs the operations of a graph that a provider has not."""


@dataclass(frozen=True)
class Provider:
    """A choice.

    Attributes:
        name: a key of ``PROVIDERS``, or ``auto``: CUDA where it is to be had, else the CPU.
        options: of onnxruntime's provider, name and value; only with a name that has some.
    """

    name: str = "auto"
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_asked_for(self) -> bool:
        """Whether another than this one would be an error."""
        return self.name != "auto"

    def to_be_tried(self, threads: int = 1) -> list[tuple[str, dict[str, str]]]:
        """What a session is asked to take, the first first: onnxruntime's names and options.

        Args:
            threads: of one run, for a provider that does not ask the session.

        Raises:
            UsageError: this onnxruntime has not what is asked for.
        """
        there = ort.get_available_providers()
        name = self.name
        if not self.is_asked_for:
            name = "cuda" if PROVIDERS["cuda"][0] in there else "cpu"
        wanted, package = PROVIDERS[name]
        if wanted not in there:
            has = ", ".join(short for short, (long, _) in PROVIDERS.items() if long in there)
            raise UsageError(
                f"provider {name}: onnxruntime {ort.__version__} of this environment has none; "
                f"allowed: {has}, auto; pip install {package} (in place of onnxruntime) brings it"
            )
        others = [PROVIDERS[one][0] for one in _BEHIND[name]]
        options = dict(self.options)
        if name == "openvino":
            options.setdefault("num_of_threads", str(threads))
        return [(wanted, options), *((one, {}) for one in others if one in there)]
