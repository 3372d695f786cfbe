"""Owns the memory metric of the service's processes (Linux); knows no other metric."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily

_PROC = Path("/proc")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB$", re.MULTILINE)
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
            size = proportional_bytes(pid)
            if size is not None:
                found[kind] = found.get(kind, 0) + size
        for kind, size in found.items():
            family.add_metric([kind], size)
        yield family

    def _processes(self) -> Iterator[tuple[int, str]]:
        if self._alone:
            yield os.getpid(), "worker"
            return
        server = os.getppid()
        yield server, "server"
        try:
            children = (_PROC / f"{server}/task/{server}/children").read_text()
        except OSError:
            children = str(os.getpid())
        for child in children.split():
            yield int(child), "worker"


def proportional_bytes(pid: int) -> int | None:
    """The proportional set size of a process in bytes; None if it has ended or Linux does not report it."""
    try:
        found = _PSS.search((_PROC / f"{pid}/smaps_rollup").read_bytes())
    except OSError:
        return None
    return int(found[1]) * _KIBIBYTE if found else None
