"""Owns the description of the machine and memory figures of processes; measures no time."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from service import __version__
from service.engine.cpu import available_cpus, cpu_flags, cpu_model
from service.process_memory import children, rollup

# CPU flags that determine the speed of int8 matrix products.
_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")


def facts() -> dict[str, object]:
    """CPU, operating system and library versions."""
    flags = cpu_flags()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpu_flags": [flag for flag in _FLAGS if flag in flags],
        "cpus": available_cpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "qa_onnx": __version__,
        "onnxruntime": version("onnxruntime"),
        "tokenizers": version("tokenizers"),
        "numpy": np.__version__,
    }


def memory(pid: int) -> dict[str, float] | None:
    """Largest RSS and total PSS in MB of `pid` and its children; None except on Linux.

    PSS divides shared pages among the processes that map them, so the sum is the total memory use.
    """
    sizes = [size for each in (pid, *children(pid)) if (size := rollup(each))]
    if not sizes:
        return None
    return {
        "rss_mb": round(max(size["Rss"] for size in sizes) / 1e6, 1),
        "pss_mb": round(sum(size["Pss"] for size in sizes) / 1e6, 1),
    }


def pss_mb(pid: int) -> float:
    """Total PSS in MB of `pid` and its children; 0 except on Linux."""
    size = memory(pid)
    return size["pss_mb"] if size else 0.0
