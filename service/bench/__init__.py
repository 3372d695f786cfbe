"""Owns the benchmark of this service on the machine it runs on; nothing of the service knows it."""
