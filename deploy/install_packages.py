"""Owns pip's options for this project's environments; knows no list of packages.

`VENV/bin/python deploy/install_packages.py ARGUMENTS` is `pip install ARGUMENTS`, whatever a caller's pip is
configured to do: of PIP_ variables and pip.conf it takes where packages come from and how to get there, and
nothing that says what is installed, or into what place (PIP_USER, PIP_TARGET, PIP_REQUIRE_HASHES, ...).
"""

import ast
import os
import subprocess
import sys

# https://pip.pypa.io/en/stable/cli/pip_install/ and its general options.
_KEPT = (
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "keyring-provider"),
    *("proxy", "cert", "client-cert", "timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir"),
    *("use-feature", "use-deprecated"),  # certificates of the system's store, for one
)
# Of a file's [global] section these change what `pip config list` lists or prints; variables win over files.
_LISTED_WHOLE = {"PIP_USER": "0", "PIP_GLOBAL": "0", "PIP_SITE": "0", "PIP_QUIET": "0", "PIP_LOG": os.devnull}
_PIP = (sys.executable, "-m", "pip")


def without_pip(environment: dict[str, str]) -> dict[str, str]:
    """All variables that are not pip's."""
    return {name: value for name, value in environment.items() if not name.upper().startswith("PIP_")}


def configured(environment: dict[str, str]) -> dict[str, str]:
    """What of a caller's configuration is kept, as PIP_ variables; those win over files, as for pip."""
    plain = without_pip(environment) | _LISTED_WHOLE
    if "PIP_CONFIG_FILE" in environment:
        plain["PIP_CONFIG_FILE"] = environment["PIP_CONFIG_FILE"]
    listed = subprocess.run(  # noqa: S603 - this environment's pip
        [*_PIP, "config", "list"], env=plain, stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    sections: dict[str, dict[str, str]] = {}
    for line in listed.splitlines():  # global.index-url='https://...'
        place, _, value = line.partition("=")
        section, _, name = place.strip().partition(".")
        if name in _KEPT and value:
            sections.setdefault(section, {})[name] = str(ast.literal_eval(value))
    files = sections.get("global", {}) | sections.get("install", {})
    found = {"PIP_" + name.upper().replace("-", "_"): value for name, value in files.items()}
    for name in _KEPT:
        variable = "PIP_" + name.upper().replace("-", "_")
        if environment.get(variable):
            found[variable] = environment[variable]
    return found


def main() -> int:
    """Install; pip's exit status."""
    environment = without_pip(dict(os.environ)) | configured(dict(os.environ))
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [*_PIP, "install", "--quiet", "--no-deps", *sys.argv[1:]]
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - this environment's pip


if __name__ == "__main__":
    sys.exit(main())
