"""Peak memory does not grow with the input."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.bulk.conftest import ROOT, WRITERS, command, make_rows

_PEAK = """
import re, sys
from service.__main__ import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(status)
"""


# Caches of pyarrow's own allocator, and arenas per thread, make the peak differ by up to 16 MB between runs.
_ONE_ARENA = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak from")
@pytest.mark.parametrize("kind", WRITERS)
def test_peak_memory_does_not_grow_with_the_input(tmp_path: Path, kind: str) -> None:
    """No stage holds all of a 40 MB input, whether rows are answered (one in 100) or invalid."""
    peaks = []
    for count in (4000, 19_000):  # the shorter one, of 10 MB, fills the readers' buffers
        rows = make_rows(count)
        for number, row in enumerate(rows):
            row["context"] += " It turns." * 250
            if number % 100:
                row["question"] = ""
        folder = tmp_path / str(count)
        folder.mkdir()
        source = WRITERS[kind](folder / f"in.{kind}", rows)
        python, _, _, *arguments = command(source, folder / f"out.{kind}")
        done = subprocess.run(
            [python, "-c", _PEAK, *arguments],
            cwd=ROOT,
            env=os.environ | _ONE_ARENA,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout.splitlines()[-1]) << 10)
    assert source.stat().st_size > 35 << 20 or kind == "parquet"  # Parquet is compressed
    assert peaks[1] - peaks[0] < 16 << 20
