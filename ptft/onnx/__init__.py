"""ONNX files: checked without being run, run by onnxruntime, and held against golden embeddings."""
