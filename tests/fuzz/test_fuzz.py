"""Short fuzzing runs of each target: mutated seeds, and coverage-guided if atheris is installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.engine.artifact import load_artifact
from service.engine.kernel import KERNEL, choose_graph
from service.settings import DEFAULT_MODEL
from tests.fuzz import manifest, request

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["manifest", "request", "operator"]
HAS_OPERATOR = choose_graph(load_artifact(DEFAULT_MODEL)).name == KERNEL

# Earlier findings, which raised something other than ArtifactError.
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
    """The paths of all values in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in paths(item, (*at, key)))][0 if at else 1 :]


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_manifests_with_mutated_values(data: st.DataObject) -> None:
    document: Any = json.loads(data.draw(st.sampled_from(manifest.SEEDS)))
    for path in data.draw(st.lists(st.sampled_from(paths(document)), min_size=1, max_size=3)):
        place = document
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = data.draw(_VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier mutation removed the path
    manifest.check(json.dumps(document).encode())


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_manifests_with_mutated_bytes(data: st.DataObject) -> None:
    manifest.check(mutated(data, manifest.SEEDS))


@pytest.mark.parametrize("content", FOUND, ids=range(len(FOUND)))
def test_earlier_findings(content: bytes) -> None:
    manifest.check(content)


def mutated(data: st.DataObject, seeds: list[bytes]) -> bytes:
    """A seed with a slice replaced by random bytes."""
    seed = data.draw(st.sampled_from(seeds))
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, min(len(seed), start + 20)))
    return seed[:start] + data.draw(st.binary(max_size=20)) + seed[end:]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_requests_with_mutated_bytes(data: st.DataObject) -> None:
    request.check(mutated(data, request.SEEDS))


@pytest.mark.parametrize("seed", request.SEEDS, ids=range(len(request.SEEDS)))
def test_seed_requests_are_valid(seed: bytes) -> None:
    """Otherwise mutations would not reach the code behind the parsers."""
    assert request.check(seed) == (400 if seed[1] else 200)


@pytest.mark.skipif(not HAS_OPERATOR, reason="the custom operator is not there, or not for this CPU")
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_mutated_graphs(data: st.DataObject) -> None:
    from tests.fuzz import operator

    operator.check(mutated(data, operator.SEEDS) + mutated(data, operator.SEEDS))


@pytest.mark.parametrize("target", TARGETS)
def test_coverage_guided_fuzzing(target: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: `make fuzz` does that, where it has a wheel")
    if target == "operator" and not HAS_OPERATOR:
        pytest.skip("the custom operator is not there, or not for this CPU")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, "-max_total_time=5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
