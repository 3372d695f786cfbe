"""Owns batch processing of files: rows in, answers out, resumable; knows no HTTP."""
