"""Run an ONNX file once, as its own process: ``python -P session.py MODEL INPUTS OUTPUTS``.

INPUTS is a safetensors file of batches for the model's only input; OUTPUTS gets the model's only
output for each, under the same names. The session has onnxruntime's default options, since a file
that only loads with some optimisation off is not one to ship. Nothing but onnxruntime is imported:
what works here works for a client that has no torch.
"""

import sys

import onnxruntime
from safetensors.numpy import load_file, save_file

__all__ = ["main"]


def main(model: str, inputs: str, outputs: str) -> None:
    """Run every batch of ``inputs`` and write the outputs."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    results = {key: session.run(None, {name: batch})[0] for key, batch in load_file(inputs).items()}
    save_file(results, outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
