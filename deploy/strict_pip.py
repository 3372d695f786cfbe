"""Runs pip as this project means it: of the caller's configuration only where packages come from is kept.

    python deploy/strict_pip.py ARGUMENTS

Indexes, folders of wheels, certificates and proxies of pip's files and variables apply. What would put
packages elsewhere (user, target, prefix, python), or change which are taken (require-hashes, constraint,
no-binary), does not: the environments are pinned, and their folder is said.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

_KEPT = (
    *("index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "keyring-provider"),
    *(
        "cert",
        "client-cert",
        "proxy",
        "timeout",
        "default-timeout",
        "retries",
        "cache-dir",
        "no-cache-dir",
        "use-feature",
    ),
)
# pip reads a setting of the later ones before that of the earlier.
_SECTIONS = ("global", "install", ":env:")
# These would let pip, or Python, work for another place than the environment that it is called in.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PIP_CONFIG_FILE")


def kept(listed: str) -> dict[str, str]:
    """Variables for pip that say what `pip config list` printed, as far as it is kept."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in found and key in _KEPT:
            # Several values stand on lines of their own in files, and between spaces in variables.
            found[section][key] = " ".join(str(ast.literal_eval(value)).split())
    values = {key: value for section in _SECTIONS for key, value in found[section].items()}
    return {"PIP_" + key.upper().replace("-", "_"): value for key, value in values.items()}


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without any word to pip."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("PIP_") and name not in _FOREIGN
    }


def main() -> None:
    """Replace this process by pip."""
    plain = surroundings(os.environ)
    names = ("PIP_" + key.upper().replace("-", "_") for key in _KEPT)
    told = {name: os.environ[name] for name in (*names, "PIP_CONFIG_FILE") if name in os.environ}
    pip = [sys.executable, "-m", "pip"]
    listing = [*pip, "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(listing, env=plain | told, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this Python's pip
    if listed.returncode:
        sys.exit(listed.returncode)
    settings = kept(listed.stdout) | {"PIP_CONFIG_FILE": os.devnull}
    os.execve(sys.executable, [*pip, *sys.argv[1:]], plain | settings)  # noqa: S606 - ditto


if __name__ == "__main__":
    main()
