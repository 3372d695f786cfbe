"""Owns how much memory the processes of a service take, as Linux tells it; knows no other figure."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily

_PROC = Path("/proc")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB$", re.MULTILINE)
_KIBIBYTE = 1024


class ProcessMemory:
    """Collects the memory of this process, or of the server and all its workers where it is one of those.

    Pages that several processes share are counted once, each process its part of them (proportional set
    size), so that the sum is what the service takes. Where the system does not tell that, there is no figure.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What prometheus_client asks for each time the figures are told."""
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
    """The proportional set size of a process, in bytes; None where the system does not tell, or it ended."""
    try:
        found = _PSS.search((_PROC / f"{pid}/smaps_rollup").read_bytes())
    except OSError:
        return None
    return int(found[1]) * _KIBIBYTE if found else None
