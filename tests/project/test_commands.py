"""Checks the commands in README and docs/: transcripts are run, options of other commands looked up."""

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.service.conftest import Start
from tests.service.conftest import start as start  # a fixture

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Programs of the operating system; tests/docker runs them in containers.
SYSTEM = ("tar", "cd", "systemctl")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands(page: Path) -> list[str]:
    """The commands in a page's code blocks, with continuation lines joined and comments removed."""
    found = []
    for block in blocks(page, ""):
        lines = re.sub(r" \\\n\s*", " ", block).splitlines()
        if lines[0].startswith("$ "):  # a transcript: a command and its output
            continue
        if page.name == "architecture.md" or lines[0].startswith("{"):  # a list of files, or a request body
            continue
        found += [re.sub(r"\s{2,}# .*", "", line).strip() for line in lines]
    return [line for line in found if line and not line.startswith("#")]


ALL = [pytest.param(line, id=f"{page.stem}: {line[:60]}") for page in PAGES for line in commands(page)]


@cache
def help_of(*module: str) -> str:
    done = subprocess.run([sys.executable, "-m", *module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("line", ALL)
def test_commands_exist(line: str) -> None:
    words = [word for word in shlex.split(line) if word != "sudo"]
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    options = {word.partition("=")[0] for word in rest if re.fullmatch(r"--[a-z-]+(=.*)?", word)}
    if program == "make":
        targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert rest[0] in targets
    elif program.endswith(("python", "qa-onnx")):
        module = ["service", *rest[:1]] if program == "qa-onnx" else rest[1:2]
        if module == ["service"]:
            module.append(rest[2])
        text = help_of(*module)
        for option in options:
            assert re.search(rf"{option}\b", text), (option, module)
    elif program.startswith("deploy/"):
        script = ROOT / program
        assert script.stat().st_mode & 0o100
        for option in options:
            assert option in script.read_text(encoding="utf-8")
    elif program == "docker":
        for file in re.findall(r"-f (\S+)", line):
            assert (ROOT / file).is_file()
    elif program == "kubectl":
        assert (ROOT / rest[-1]).exists()
    elif program == "pip":
        assert rest[0] == "install"
    else:
        assert program in SYSTEM, program


def test_transcripts_are_reproducible(start: Start) -> None:
    """Blocks that begin with a prompt, run against a service with the default model."""
    service = start(QA_MODEL=str(ROOT / "models/default"))
    tried = 0
    for page in PAGES:
        for block in blocks(page, ""):
            if not block.startswith("$ ") or "..." in block:  # "..." is a placeholder
                continue
            block = block.removeprefix("$ ")
            command, expected = block, ""
            if not block.rstrip().endswith("'"):
                command, _, expected = block.rstrip().rpartition("\n")
            command = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
            command = command.replace(".venv/bin/python", sys.executable)
            done = subprocess.run(
                ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            answered = done.stdout.strip()
            if expected.startswith("{"):
                got, wanted = json.loads(answered), json.loads(expected)
                # Rounding differs between CPUs.
                assert got.pop("score") == pytest.approx(wanted.pop("score"), abs=0.05)
                assert got == wanted
            elif expected:
                assert answered.split("score")[0] == expected.split("score")[0]
            tried += 1
    assert tried >= 3


def test_python_of_the_pages_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippet of use.md; those of other pages have their own tests."""
    monkeypatch.chdir(ROOT)
    (snippet,) = blocks(ROOT / "docs/use.md", "python")
    exec(compile(snippet, "docs/use.md", "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.startswith("Amelia Hart ")
