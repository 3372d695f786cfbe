"""Owns the user error of the export; knows no stage."""


class ExportError(Exception):
    """The export failed; the message is one sentence: what, why, what to do."""


def reason(error: Exception) -> str:
    """The most specific line of a library's error, without a full stop, to end a sentence with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # torch lists the details after "Error(s) in loading state_dict".
    told = next((line for line in lines if line.startswith("size mismatch")), lines[0] if lines else "")
    return (told or type(error).__name__).rstrip(".:")
