"""Owns how a wheel is built: setuptools, after the C files are compiled; knows no installation.

A build backend by PEP 517. With a C compiler the wheel carries the compiled parts and is for this platform;
without one it is for any, and what is installed from it is slower. Editable installations are as setuptools
has them.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - all other hooks are setuptools' own
from setuptools.command.egg_info import manifest_maker

# What the build needs beside the packages goes into the archive of sources, too. Setuptools has no setting
# for where this list is.
manifest_maker.template = "deploy/MANIFEST.in"

_ROOT = Path(__file__).resolve().parent.parent

Settings = Mapping[str, Any] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Compile, then have setuptools build, without the files that an earlier build left in build/lib."""
    shutil.rmtree(_ROOT / "build" / "lib", ignore_errors=True)
    settings = dict(config_settings or {})
    if _compiled():
        # Not in the tags of Python: the parts are called by ctypes and know nothing of it.
        settings["--build-option"] = [*settings.get("--build-option", []), f"--plat-name={_platform()}"]
    name: str = build_meta.build_wheel(wheel_directory, settings, metadata_directory)
    return name


def _compiled() -> bool:
    subprocess.run(["/bin/sh", _ROOT / "deploy" / "native.sh", sys.executable], check=True)  # noqa: S603
    return any((_ROOT / "service" / "engine" / "native").glob("*.so"))


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
