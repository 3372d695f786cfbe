"""Owns the one failure of the export side that a user can put right; knows no stage."""


class ExportError(Exception):
    """The export cannot go on; the message is one sentence: what, why, what to do."""


def reason(error: Exception) -> str:
    """The line of a library's failure that tells most, to end a sentence with, without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Behind "Error(s) in loading state_dict" torch lists them.
    told = next((line for line in lines if line.startswith("size mismatch")), lines[0] if lines else "")
    return (told or type(error).__name__).rstrip(".:")
