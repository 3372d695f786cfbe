"""Owns the torch-free side of qa-onnx: an HTTP service around an exported model, and its engine."""

__version__ = "0.1.0"
