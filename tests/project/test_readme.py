"""Holds the README to the code: settings, parameters, commands and files that it names."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from service.engine.parameters import Parameters
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_is_told_with_its_default(setting) -> None:  # type: ignore[no-untyped-def] # a Field
    default = "models/default" if setting.name == "model" else setting.default
    flag = "--" + setting.name.replace("_", "-")
    row = f"| `QA_{setting.name.upper()}` | `{flag}` | `{default}` | {setting.metadata['help']} |"
    assert row in README


def test_no_setting_is_told_that_does_not_exist() -> None:
    known = {f"QA_{setting.name.upper()}" for setting in fields(Settings)}
    assert set(re.findall(r"\bQA_[A-Z_]+\b", README)) - {"QA_"} <= known


@pytest.mark.parametrize("parameter", fields(Parameters), ids=lambda parameter: parameter.name)
def test_every_parameter_is_told(parameter) -> None:  # type: ignore[no-untyped-def] # a Field
    (told,) = re.findall(rf"^\| `{parameter.name}` \| (.*?) \|", README, re.MULTILINE)
    special = {"doc_stride": "128", "null_threshold": "the model's", "scoring": '`"global"`'}
    default = special.get(parameter.name, str(parameter.default).lower())
    assert told == default


def test_every_file_of_the_service_is_told() -> None:
    told = README[README.index("## The folders") :]
    for file in [*(ROOT / "service").glob("*.py"), *(ROOT / "service/engine").glob("*.py")]:
        assert file.name == "__init__.py" or f" {file.name} " in told, file
    for file in (ROOT / "export").glob("*.py"):
        assert file.name in ("__init__.py", "errors.py") or file.name in told, file


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not re.search(r"@[A-Z]+@", README)


def test_links_lead_somewhere() -> None:
    others = [(ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md")]
    for document in (README, *others):
        for target in re.findall(r"\]\(([^)#]+)\)", document):
            assert target.startswith("http") or (ROOT / target).exists(), target


def test_what_the_security_page_names_exists() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z]+)", page, re.MULTILINE)) <= set(targets)
    for path in re.findall(r"`((?:deploy|tests)/[a-z_/.]+)`", page):
        assert (ROOT / path).exists(), path
