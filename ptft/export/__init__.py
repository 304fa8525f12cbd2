"""A trained model as the folder that every client loads, with ONNX files that prove themselves."""

from ptft.export.folder import export_model

__all__ = ["export_model"]
