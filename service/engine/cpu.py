"""Owns what this process may use of the CPU: count, name, instruction sets; knows no model."""

import math
import os
import platform
from pathlib import Path

# What a quantized artifact needs to answer rightly, as /proc/cpuinfo flags: any one set suffices.
# Without VNNI, u8 x s8 products are summed in 16 bits and saturate when weights use all 8 bits.
_TARGET_FLAGS: dict[str, tuple[frozenset[str], ...]] = {
    "avx2": (frozenset({"avx2"}),),
    "avx512_vnni": (frozenset({"avx512_vnni"}), frozenset({"avx_vnni"})),
}
TARGETS = ("portable", "avx512_vnni", "avx2", "arm64")


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs this process may really use, at least 1: affinity mask cut by the cgroup quota.

    `os.cpu_count()` is the host's count; a container limited to two of 64 CPUs that starts 64
    threads is throttled for most of every scheduling period. A quota of 1.5 CPUs counts as 2.
    `root` is the filesystem root to read /proc and /sys under.
    """
    # macOS has no affinity mask and no cgroups.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def supports(target: str) -> bool:
    """Whether this CPU answers rightly with an artifact made for `target` (see `TARGETS`)."""
    if target == "portable":
        return True
    arm = platform.machine().lower() in {"aarch64", "arm64"}
    if target == "arm64" or arm:
        return target == "arm64" and arm
    flags = cpu_flags()
    return any(needed <= flags for needed in _TARGET_FLAGS[target])


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Instruction-set flags as the Linux kernel names them; empty where it does not tell."""
    return frozenset((_cpuinfo(root, "flags") or _cpuinfo(root, "Features")).split())


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's marketing name, or the machine type where there is none."""
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
    """CPUs allowed by the tightest cgroup above this process (v2 or v1), None for no limit."""
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
        # A limit binds everything below it, so every level up to the mount counts. Inside a
        # container the path is often the host's and absent here: then only the mount's is left.
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
