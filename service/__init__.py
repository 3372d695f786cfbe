"""Owns the torch-free side of qa-onnx: an HTTP service around an exported model, and its engine."""

import os

__version__ = "0.2.0"

# ONNX Runtime 1.29 and later reports its use to Microsoft from Linux too, from the moment it is
# imported, with a device id on disk. Questions and contexts are not part of that, but a service
# people run for themselves phones nobody. Whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Ray does, too, where `bulk --engine ray` starts it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# NumPy's BLAS would start a thread per CPU when it is imported; nothing here multiplies with it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# `tokenizers` would start a thread per CPU for a batch; texts come one by one here.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
