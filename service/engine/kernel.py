"""Owns the choice between the portable graph and the one with the custom operator; runs neither.

`deploy/native.sh` compiles native/operator.c, a custom operator of ONNX Runtime, when an environment is
created. An artifact can contain a second graph over the same weights, whose encoder is one node of that
operator. If the CPU, the library or that graph is missing, the portable graph gives the same answers, slower.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

from service.engine.artifact import KERNEL_FILE, MODEL_FILE, Artifact
from service.engine.cpu import cpu_flags, cpu_model

PORTABLE, KERNEL = "portable", "avx512_vnni"
LIBRARY = Path(__file__).parent / "native" / f"operator-{platform.machine()}.so"
# Instruction sets that the library is compiled for, as in /proc/cpuinfo.
_FLAGS = frozenset({"fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"})


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph of an artifact; `reason` says why it is not the one with the operator ("" if it is)."""

    name: str
    path: Path
    reason: str = ""


def portable_graph(artifact: Artifact, reason: str) -> Graph:
    """The graph for any CPU."""
    return Graph(PORTABLE, artifact.path / MODEL_FILE, reason)


def choose_graph(artifact: Artifact, *, enabled: bool = True) -> Graph:
    """The fastest graph that this machine supports; the portable one if not `enabled`.

    ONNX Runtime can still reject the library or the graph at load time (see `session`).
    """
    if not enabled:
        return portable_graph(artifact, "QA_KERNEL=0 asks for the portable graph.")
    if KERNEL_FILE not in artifact.manifest["files"]:
        return portable_graph(artifact, f"The artifact has no {KERNEL_FILE}.")
    if missing := _FLAGS - cpu_flags():
        return portable_graph(artifact, f"The CPU ({cpu_model()}) lacks {', '.join(sorted(missing))}.")
    if not LIBRARY.is_file():
        return portable_graph(artifact, f"{LIBRARY.name} is not compiled: deploy/native.sh does that.")
    return Graph(KERNEL, artifact.path / KERNEL_FILE)
