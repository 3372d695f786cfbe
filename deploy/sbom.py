"""Owns the bill of materials (CycloneDX 1.6, JSON); knows no vulnerabilities.

`python deploy/sbom.py VENV [MODEL]` writes to standard output what the environment VENV holds, in the
versions installed there, and the files of the model folder MODEL with their hashes.
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent


def packages(venv: Path) -> list[Component]:
    """One component for each installed package."""
    (site,) = venv.glob("lib/python3*/site-packages")
    components = []
    for found in importlib.metadata.distributions(path=[str(site)]):
        name, version, licence = found.metadata["Name"], found.version, _licence(found.metadata.json)
        components.append(
            Component(
                type=ComponentType.LIBRARY,
                name=name,
                version=version,
                bom_ref=f"{name}=={version}",
                purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version),
                licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
            )
        )
    return components


def _licence(about: dict[str, Any]) -> str:
    """What a package says of its licence, "" where it says nothing; some put the whole text there."""
    said = str(about.get("license_expression") or about.get("license") or "").strip()
    told = [line for line in about.get("classifier", []) if line.startswith("License ::")]
    return (said or (told[0].rpartition(" :: ")[2] if told else "")).partition("\n")[0][:100]


def model(folder: Path) -> Component:
    """The model as one component, its files as parts of it."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    source = manifest["source"]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=str(source["id"]),
        version=str(source["commit"] or ""),
        bom_ref=f"model {folder.name}",
        components=[
            Component(
                type=ComponentType.FILE,
                name=name,
                bom_ref=f"model {folder.name}/{name}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry["sha256"])],
            )
            for name, entry in manifest["files"].items()
        ],
    )


def main() -> int:
    """Write the bill; exit status 2 for wrong arguments."""
    if len(sys.argv) not in (2, 3):
        print("usage: deploy/sbom.py VENV [MODEL]", file=sys.stderr)
        return 2
    components = packages(Path(sys.argv[1]))
    if len(sys.argv) == 3:
        components.append(model(Path(sys.argv[2])))
    version = (ROOT / "service/__init__.py").read_text(encoding="utf-8").partition('__version__ = "')[2]
    bom = Bom(components=components)
    bom.metadata.component = Component(
        type=ComponentType.APPLICATION,
        name="qa-onnx",
        version=version.partition('"')[0],
        bom_ref="qa-onnx",
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )
    bom.register_dependency(bom.metadata.component, components)
    print(JsonV1Dot6(bom).output_as_string(indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
