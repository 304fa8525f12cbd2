"""The service: a model folder behind HTTP, on onnxruntime and without torch."""
