"""Owns one file per peer: what it installs and how it answers; the files know nothing of each other."""
