"""Owns the torch side of qa-onnx: from a Hugging Face QA model to a verified artifact."""
