"""Owns the one failure of the export side that a user can put right; knows no stage."""


class ExportError(Exception):
    """The export cannot go on; the message is one sentence: what, why, what to do."""
