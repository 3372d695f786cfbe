"""Owns the pinned requirements files, generated from pyproject.toml; knows no installation.

`python deploy/requirements.py` resolves anew and writes them; `--check` only compares, offline.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
# Each file holds the one before it, in the same versions.
KINDS = {"runtime": "requirements.txt", "export": "requirements-export.txt", "dev": "requirements-dev.txt"}
_HEADER = (
    "# Generated from pyproject.toml by deploy/requirements.py. Install with --no-deps: the list is whole.\n"
)

Pins = dict[str, str]


def wanted(pyproject: Path) -> tuple[dict[str, list[Requirement]], set[str]]:
    """What each kind of environment asks for directly, and what the run time leaves out."""
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = content["project"]
    extras = project["optional-dependencies"]
    runtime = [Requirement(line) for line in project["dependencies"]]
    export = runtime + [Requirement(line) for line in extras["export"]]
    dev = export + [Requirement(line) for line in extras["dev"]]
    left_out: set[str] = {canonicalize_name(name) for name in content["tool"]["qa-onnx"]["not-at-run-time"]}
    return {"runtime": runtime, "export": export, "dev": dev}, left_out


def resolve(pyproject: Path) -> dict[str, Pins]:
    """Exact versions for every kind, from one resolution by pip, so that they agree."""
    roots, left_out = wanted(pyproject)
    done = subprocess.run(  # noqa: S603 - pip with the project's own requirements
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            "-",
        ]
        + [str(requirement) for requirement in roots["dev"]],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: Pins = {}
    needs: dict[str, list[Requirement]] = {}
    for item in json.loads(done.stdout)["install"]:
        metadata = item["metadata"]
        name = canonicalize_name(metadata["name"])
        # A local part (2.13.0+cpu) names a build, which is the installer's to choose.
        found[name] = Version(metadata["version"]).public
        needs[name] = [Requirement(line) for line in metadata.get("requires_dist", [])]
    return {
        kind: _reachable(roots[kind], found, needs, left_out if kind == "runtime" else set())
        for kind in KINDS
    }


def _reachable(
    roots: Iterable[Requirement], found: Pins, needs: dict[str, list[Requirement]], left_out: set[str]
) -> Pins:
    pins: Pins = {}
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in pins or name in left_out or name not in found:
            continue
        pins[name] = found[name]
        for needed in needs[name]:
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return pins


def render(pins: Pins) -> str:
    """A requirements file."""
    return _HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


def faults(root: Path) -> list[str]:
    """What is wrong with the files under `root`, one sentence each; needs no network."""
    roots, left_out = wanted(root / "pyproject.toml")
    problems: list[str] = []
    held: Pins = {}
    for kind, name in KINDS.items():
        pins: Pins = {}
        for line in (root / name).read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            package, exact, version = line.partition("==")
            if not exact or not version:
                problems.append(f"{name}: '{line}' is no exact pin.")
                continue
            pins[package] = version
        for requirement in roots[kind]:
            pinned = pins.get(canonicalize_name(requirement.name))
            if pinned is None:
                problems.append(f"{name} lacks {requirement.name}.")
            elif not requirement.specifier.contains(pinned, prereleases=True):
                problems.append(
                    f"{name} has {requirement.name} {pinned}, pyproject.toml wants {requirement}."
                )
        problems += [
            f"{name} has {package} {pins.get(package)}, the smaller file {version}."
            for package, version in held.items()
            if pins.get(package) != version
        ]
        if kind == "runtime":
            problems += [
                f"{name} has {package}, which is left out." for package in sorted(left_out & pins.keys())
            ]
        if (root / name).read_text(encoding="utf-8") != render(pins):
            problems.append(f"{name} is not as the generator writes it.")
        held = pins
    return problems


def main() -> int:
    """Write the files, or check them; exit status 1 where the check finds faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, without a network")
    if parser.parse_args().check:
        problems = faults(ROOT)
        for problem in problems:
            print(problem, file=sys.stderr)
        return 1 if problems else 0
    for kind, pins in resolve(ROOT / "pyproject.toml").items():
        (ROOT / KINDS[kind]).write_text(render(pins), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
