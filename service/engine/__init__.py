"""Owns the way from two texts to an answer span, torch-free; knows no HTTP, queue or setting."""
