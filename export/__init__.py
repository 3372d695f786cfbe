"""Owns the export of Hugging Face QA models to verified artifacts (build time: torch, optimum)."""
