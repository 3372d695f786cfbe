"""Owns the memory metric of the service's processes (Linux); knows no other metric."""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily

_PROC = Path("/proc")
_KIBIBYTE = 1024


class ProcessMemory:
    """Collector of the memory of this process, or in a server that of the master and all workers.

    The proportional set size counts shared pages once over all processes, so the sum is the memory of the
    service. On systems without it the metric has no samples.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metric family; prometheus_client calls this for each scrape."""
        family = GaugeMetricFamily(
            "qa_memory_bytes",
            "Memory of the service's processes, shared pages counted once (Linux' PSS).",
            labels=["process"],
        )
        found: dict[str, int] = {}
        for pid, kind in self._processes():
            if sizes := rollup(pid):
                found[kind] = found.get(kind, 0) + sizes["Pss"]
        for kind, size in found.items():
            family.add_metric([kind], size)
        yield family

    def _processes(self) -> Iterator[tuple[int, str]]:
        if self._alone:
            yield os.getpid(), "worker"
            return
        server = os.getppid()
        yield server, "server"
        for child in children(server) or [os.getpid()]:
            yield child, "worker"


def children(pid: int) -> list[int]:
    """The process ids of its children; none if it has ended or the kernel does not list them."""
    try:
        return [int(child) for child in (_PROC / f"{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def rollup(pid: int) -> dict[str, int] | None:
    """The sizes in bytes of Linux' smaps_rollup, Rss and Pss among them; None if the process has none."""
    try:
        lines = (_PROC / f"{pid}/smaps_rollup").read_text().splitlines()[1:]  # the first is the address range
    except OSError:
        return None
    return {line.split(":")[0]: int(line.split()[1]) * _KIBIBYTE for line in lines} or None
