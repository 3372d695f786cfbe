"""Owns CPU detection: available count, name, instruction sets; knows no model."""

import math
import os
import platform
from pathlib import Path

# Flags of /proc/cpuinfo required for correct results of a quantized artifact; any one set suffices. Without
# VNNI, u8 x s8 products accumulate in 16 bits and saturate if weights use all 8 bits.
_TARGET_FLAGS: dict[str, tuple[frozenset[str], ...]] = {
    "avx2": (frozenset({"avx2"}),),
    "avx512_vnni": (frozenset({"avx512_vnni"}), frozenset({"avx_vnni"})),
}
TARGETS = ("portable", "avx512_vnni", "avx2", "arm64")


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs available to this process, at least 1: the affinity mask, limited by the cgroup quota.

    `os.cpu_count()` is the host's count; a container limited to two of 64 CPUs that starts 64 threads is
    throttled for most of every scheduling period. A quota of 1.5 CPUs counts as 2. /proc and /sys are read
    below `root`.
    """
    # macOS has no affinity mask and no cgroups.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def supports(target: str) -> bool:
    """Whether an artifact for `target` (see `TARGETS`) gives correct results on this CPU."""
    if target == "portable":
        return True
    arm = platform.machine().lower() in {"aarch64", "arm64"}
    if target == "arm64" or arm:
        return target == "arm64" and arm
    flags = cpu_flags()
    return any(needed <= flags for needed in _TARGET_FLAGS[target])


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Instruction-set flags by their Linux names; empty if unknown."""
    return frozenset((_cpuinfo(root, "flags") or _cpuinfo(root, "Features")).split())


def cpu_model(root: Path = Path("/")) -> str:
    """The CPU's model name, or the machine type if unknown."""
    return _cpuinfo(root, "model name") or platform.processor() or platform.machine()


def _cpuinfo(root: Path, key: str) -> str:
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _cgroup_quota(root: Path) -> float | None:
    """The lowest CPU quota of the cgroups of this process (v2 or v1), None for no limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # v2: one hierarchy
            mount, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # Limits are hierarchical, so every level up to the mount counts. Inside a container the path is
        # often the host's and does not exist: then only the mount's own limit is known.
        folder = mount / path.lstrip("/")
        for level in (folder, *folder.parents):
            quota = read(level)
            if quota is not None:
                quotas.append(quota)
            if level == mount:
                break
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
