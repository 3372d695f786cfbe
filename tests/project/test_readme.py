"""Checks README and docs/ against the code: settings, parameters, links and files that they name."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from service.engine.parameters import Parameters
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def test_the_readme_is_short_and_links_to_every_page() -> None:
    assert len(README.splitlines()) <= 120
    for page in PAGES:
        assert page == "README.md" or f"]({page})" in README, page


def test_the_table_of_settings_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "deploy/settings_table.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for setting in fields(Settings):
        assert f"| `QA_{setting.name.upper()}` |" in PAGES["docs/settings.md"]


@pytest.mark.parametrize("page", PAGES)
def test_documented_settings_exist(page: str) -> None:
    known = {f"QA_{setting.name.upper()}" for setting in fields(Settings)}
    assert set(re.findall(r"\bQA_[A-Z_]+\b", PAGES[page])) - {"QA_"} <= known


@pytest.mark.parametrize("parameter", fields(Parameters), ids=lambda parameter: parameter.name)
def test_every_parameter_is_documented(parameter) -> None:  # type: ignore[no-untyped-def] # a Field
    (documented,) = re.findall(rf"^\| `{parameter.name}` \| (.*?) \|", PAGES["docs/use.md"], re.MULTILINE)
    special = {"doc_stride": "128", "null_threshold": "the model's", "scoring": '`"global"`'}
    default = special.get(parameter.name, str(parameter.default).lower())
    assert documented == default


def test_every_module_is_documented() -> None:
    documented = PAGES["docs/architecture.md"]
    for file in [*(ROOT / "service").glob("*.py"), *(ROOT / "service/engine").glob("*.py")]:
        assert file.name == "__init__.py" or f" {file.name} " in documented, file
    for file in (ROOT / "export").glob("*.py"):
        assert file.name in ("__init__.py", "errors.py") or file.name in documented, file


def test_no_placeholders_are_left() -> None:
    for text in PAGES.values():
        assert not re.search(r"@[A-Z]+@", text)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "SECURITY.md", "models/default/README.md"])
def test_links_resolve(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        file, _, heading = target.partition("#")
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if heading:
            text = path.read_text(encoding="utf-8").lower()
            titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}, target


def test_commands_and_paths_of_the_security_page_exist() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z]+)", page, re.MULTILINE)) <= set(targets)
    for path in re.findall(r"`((?:deploy|tests)/[a-z_/.]+)`", page):
        assert (ROOT / path).exists(), path
