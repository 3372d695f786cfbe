"""Seconds of fuzzing for each target: changed seeds, and guided by coverage where atheris is."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import manifest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["manifest"]

# Failed once with something else than a refusal.
FOUND = [
    b"[" * 100_000,  # RecursionError
    b'{"format": 1, "precision": ["int8"]}',
    manifest.SEEDS[0].replace(b'"model.onnx"', b'"\\ud800"'),  # UnicodeEncodeError
    manifest.SEEDS[0].replace(b'"model.onnx"', b'"a\\u0000b"'),  # ValueError: embedded null byte
]

_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def paths(value: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something is in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in paths(item, (*at, key)))][0 if at else 1 :]


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_manifest_with_another_value_somewhere(data: st.DataObject) -> None:
    document: Any = json.loads(data.draw(st.sampled_from(manifest.SEEDS)))
    for path in data.draw(st.lists(st.sampled_from(paths(document)), min_size=1, max_size=3)):
        place = document
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = data.draw(_VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    manifest.check(json.dumps(document).encode())


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_manifest_with_other_bytes(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(manifest.SEEDS))
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, min(len(seed), start + 20)))
    manifest.check(seed[:start] + data.draw(st.binary(max_size=20)) + seed[end:])


@pytest.mark.parametrize("content", FOUND, ids=range(len(FOUND)))
def test_what_was_found(content: bytes) -> None:
    manifest.check(content)


@pytest.mark.parametrize("target", TARGETS)
def test_guided_by_coverage(target: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: `make fuzz` does that, where it has a wheel")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, "-max_total_time=5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
