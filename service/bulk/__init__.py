"""Owns answering whole files: rows in, answers out, resumable; knows no HTTP."""
