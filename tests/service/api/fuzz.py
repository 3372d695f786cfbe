"""Fuzzes a running service with valid and invalid requests generated from its OpenAPI document.

`python -m tests.service.api.fuzz URL --examples 5000` prints the findings of schemathesis; status 0 for none.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CONFIG = Path(__file__).with_name("schemathesis.toml")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run of schemathesis."""

    clean: bool
    cases: int
    text: str


def fuzz(url: str, examples: int, *flags: str) -> Outcome:
    """Run at least `examples` cases in total against the service at `url`."""
    with urllib.request.urlopen(f"{url}/openapi.json") as response:  # the tests' own server
        paths = json.load(response)["paths"]
    asking = sum("post" in operations for operations in paths.values())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
        command += [f"{url}/openapi.json", "--no-color", "--continue-on-failure", "--request-timeout", "60"]
        command += ["--max-examples", str(-(-examples // asking)), *flags]
        # It writes a folder into its working directory.
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    (line,) = [line for line in done.stdout.splitlines() if " generated" in line] or ["0 generated"]
    return Outcome(done.returncode == 0, int(line.split()[0]), done.stdout)


def main() -> int:
    """Run schemathesis and print its output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", metavar="URL", help="a running service, http://HOST:PORT")
    parser.add_argument("--examples", type=int, default=5000, help="cases at least (default 5000)")
    options = parser.parse_args()
    outcome = fuzz(options.url.rstrip("/"), options.examples)
    print(outcome.text)
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
