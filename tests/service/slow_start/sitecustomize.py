"""Delays the import of ONNX Runtime, like a slow disk, in every process with this folder on PYTHONPATH."""

import ctypes
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

_MODULE = os.environ.get("SLOW_START_MODULE", "onnxruntime")


class SlowLoader(SourceFileLoader):
    """Sleeps before it executes a module, first without the GIL, then holding it."""

    def exec_module(self, module: ModuleType) -> None:
        print(f"Waiting for {self.name}", file=sys.stderr, flush=True)
        if Path(os.environ.get("SLOW_START_KILLED_BY", "/nowhere")).exists():
            os.kill(os.getpid(), signal.SIGKILL)  # like the kernel's OOM killer
        time.sleep(float(os.environ.get("SLOW_START_SECONDS", "0")))
        ctypes.PyDLL(None).sleep(int(os.environ.get("SLOW_START_HOLD_SECONDS", "0")))
        super().exec_module(module)


class Slow:
    """Finds the delayed module."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if spec is not None and spec.origin is not None:
            spec.loader = SlowLoader(name, spec.origin)
        return spec


sys.meta_path.insert(0, Slow())
