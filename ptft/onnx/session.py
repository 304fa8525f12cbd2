"""One ONNX file in onnxruntime: loaded on the provider that is asked for and on no other, and run.

On a GPU inputs and outputs go through page-locked buffers that are bound to the session: the copies
then need no other, and the driver moves them by itself.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptft.errors import ArtifactError, UsageError
from ptft.onnx.provider import ON_GPU, Provider

__all__ = ["Bound", "Session"]

_KEPT = 32  # shapes of batches whose buffers are kept


class Session:
    """A tower: one input, one output of a row each.

    Args:
        path: the file, already checked (:mod:`ptft.onnx.check`).
        threads: of one run.
        provider: where it runs.
        rank: dimensions of the output: 2, or 3 where an input has several rows.

    Attributes:
        provider: onnxruntime's name of what runs it.

    Raises:
        ArtifactError: onnxruntime cannot load it.
        UsageError: the provider that is asked for is not there, or does not start.
    """

    def __init__(self, path: Path, threads: int, provider: Provider, rank: int = 2) -> None:
        self._path = path
        self._rank = rank
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Waiting threads would burn the very CPUs that decode the next images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        tried = provider.to_be_tried(threads)
        fallback = 0 if provider.is_asked_for else 1
        try:
            self._session = ort.InferenceSession(
                path, options, providers=tried, enable_fallback=fallback
            )
            self._input = self._session.get_inputs()[0]
            self._output = self._session.get_outputs()[0].name
        except Exception as error:  # onnxruntime's own errors share no base below Exception
            if provider.is_asked_for and provider.name != "cpu":
                raise UsageError(
                    f"provider {provider.name}: it does not load {path}: {_first(error)}"
                ) from None
            raise ArtifactError(f"{path}: onnxruntime cannot load it: {_first(error)}") from None
        self.provider: str = self._session.get_providers()[0]
        if provider.is_asked_for and self.provider != tried[0][0]:
            raise UsageError(
                f"provider {provider.name}: it did not start, and onnxruntime took "
                f"{self.provider}; its own messages on stderr say why (CUDA, cuDNN or a driver)"
            )
        self._bound: Bound | None = None
        if self.provider in ON_GPU:
            self._bound = Bound(self._session, _page_locked())

    def __call__(self, batch: NDArray) -> NDArray[np.float32]:
        """A batch to its rows (B, D), or (B, N, D).

        Raises:
            ArtifactError: onnxruntime cannot run it, or it gives something else.
        """
        try:
            if self._bound is not None:
                output = self._bound(batch)
            else:
                (output,) = self._session.run([self._output], {self._input.name: batch})
            found = np.asarray(output, np.float32)
        except Exception as error:
            raise ArtifactError(
                f"{self._path}: onnxruntime cannot run it: {_first(error)}"
            ) from None
        if found.ndim != self._rank or len(found) != len(batch):
            raise ArtifactError(
                f"{self._path}: gives {found.shape} of {len(batch)} inputs; allowed: a row of each"
            )
        return found


class Bound:
    """A session whose input lies in buffers that stay, one for each shape of late.

    Args:
        session: with one input and one output.
        memory: where the buffers lie, as ``OrtEpDevice.memory_info`` says it; None: anywhere.
    """

    def __init__(self, session: ort.InferenceSession, memory: object = None) -> None:
        self._session = session
        self._memory = memory
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self._kept: OrderedDict[tuple[object, ...], ort.OrtValue] = OrderedDict()

    def __call__(self, batch: NDArray) -> NDArray:
        """What the session gives for a batch, in memory of its own."""
        value = self._buffer(batch)
        value.numpy()[...] = batch  # a view: what the host can reach is not copied
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, value)
        binding.bind_output(self._output)  # on the CPU: the next thing is numpy's
        self._session.run_with_iobinding(binding)
        (output,) = binding.copy_outputs_to_cpu()
        return np.array(output)

    def _buffer(self, batch: NDArray) -> ort.OrtValue:
        key = (batch.dtype.str, *batch.shape)
        if (found := self._kept.get(key)) is None:
            more = {} if self._memory is None else {"memory_info": self._memory}
            found = self._kept[key] = ort.OrtValue.ortvalue_from_shape_and_type(
                list(batch.shape), batch.dtype.type, **more
            )
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found


def _page_locked() -> object:
    """Memory of the host that the GPU reads by itself; None where onnxruntime offers none."""
    for device in ort.get_ep_devices():
        memory = device.memory_info(ort.OrtDeviceMemoryType.HOST_ACCESSIBLE)
        if device.ep_name in ON_GPU and memory is not None:
            try:
                ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, memory_info=memory)
            except RuntimeError:  # "No shared allocator found": a build without one
                continue
            return memory
    return None


def _first(error: Exception) -> str:
    """Its first line; of a long one the end, behind the names of C++'s functions."""
    line = str(error).strip().split("\n")[0]
    return line if len(line) <= 300 else f"...{line[-297:]}"
