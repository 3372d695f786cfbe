"""Owns the load generator and the soak test; nothing else in the service depends on it."""
