"""The command line without a server: answer and check, in the run-time environment."""

import json
import os
import shutil
import signal
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from service.settings import Settings
from tests.service.conftest import MODEL, ROOT, environment
from tests.service.test_predict import ITEM


@pytest.fixture
def run(runtime_python: Path):  # type: ignore[no-untyped-def] # the signature is the inner one's
    def run(*arguments: str, stdin: bytes = b"", **settings: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [runtime_python, "-m", "service", *arguments],
            input=stdin,
            capture_output=True,
            cwd=ROOT,
            env=environment(**({"QA_MODEL": str(MODEL)} | settings)),
        )

    return run


def test_answer_prints_offsets_and_score(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "context.txt"
    file.write_text(ITEM["context"])
    done = run("answer", "--question", ITEM["question"], "--context-file", str(file))
    assert done.returncode == 0, done.stderr
    same = run("answer", "--question", ITEM["question"], "--context-file", str(file), "--json")
    found = json.loads(same.stdout)
    assert ITEM["context"][found["start"] : found["end"]] == found["answer"]
    text = done.stdout.decode()
    assert text.startswith(found["answer"] + "\t")
    assert f"characters {found['start']} to {found['end']}" in text
    assert f"{found['score']:.4f}" in text


def test_answer_reads_stdin_unchanged(run) -> None:  # type: ignore[no-untyped-def]
    context = "First line\r\nZoe\u0308 left in 1931\r\n"
    done = run(
        *("answer", "--question", "Who?", "--context-file", "-", "--json", "--top-k", "20"),
        stdin=context.encode(),
    )
    answers = json.loads(done.stdout)
    assert len(answers) == 20
    assert all(context[a["start"] : a["end"]] == a["answer"] for a in answers)
    assert any("\r\n" in a["answer"] for a in answers)


def test_answer_prints_no_answer(run) -> None:  # type: ignore[no-untyped-def]
    done = run("answer", "--question", "Who?", "--context-file", "-", stdin=b" \n")
    assert done.returncode == 0
    assert b"no answer" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("answer", "--question", "Who?", "--context-file", "-"), b"\xff\xfe", "UTF-8"),
        (("answer", "--question", "Who?", "--context-file", "-"), b"", "context"),
        (("answer", "--question", "", "--context-file", "-"), b"text", "question"),
        (("answer", "--question", "Who?", "--context-file", "/no/such"), b"", "/no/such"),
        (("answer", "--question", "Q", "--context-file", "-", "--top-k", "0"), b"text", "top_k"),
        (("answer", "--question", "Q", "--context-file", "-", "--model", "/no/such"), b"text", "/no/such"),
        (("check", "/no/such"), b"", "/no/such"),
    ],
)
def test_errors_are_one_sentence(run, arguments, stdin: bytes, words: str) -> None:  # type: ignore[no-untyped-def]
    done = run(*arguments, stdin=stdin)
    assert done.returncode == 2
    message = done.stderr.decode()
    assert words in message
    assert message.count("\n") == 1


def test_check(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = run("check", str(MODEL))
    assert done.returncode == 0, done.stderr
    assert str(MODEL) in done.stdout.decode()
    altered = tmp_path / "altered"
    shutil.copytree(MODEL, altered)
    with (altered / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    done = run("check", str(altered))
    assert done.returncode == 2
    assert b"tokenizer.json" in done.stderr


def test_soak_compares_every_reply_and_prints_figures(run) -> None:  # type: ignore[no-untyped-def]
    done = run("soak", "--requests", "200", "--growth", "0.5", "--model", str(MODEL))
    text = done.stdout.decode()
    print(text)
    assert done.returncode == 0, text + done.stderr.decode()
    assert " 0 wrong replies" in text
    assert "memory after warm-up" in text
    assert "p99 after warm-up" in text


COMMANDS = ("serve", "health", "answer", "check", "soak", "bench", "bulk")


def test_help_lists_every_setting(run) -> None:  # type: ignore[no-untyped-def]
    text = run("serve", "--help").stdout.decode()
    for setting in fields(Settings):
        assert f"(QA_{setting.name.upper()}" in text.replace("(QA_\n", "(QA_")
    assert "--no-access-log" in text
    assert "default )" not in text


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_fits_a_terminal_and_has_an_example(run, command: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    done = run(*command, "--help", COLUMNS="80")
    assert done.returncode == 0
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert max(map(len, lines)) <= 80
    if command:
        assert lines[-1].startswith(f"example: python -m service {command[0]} ")
    else:
        assert all(f"\n    {name} " in "\n".join(lines) for name in COMMANDS)


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("serve", "--threads"), ("answer",), ("bulk",)])
def test_usage_errors_go_to_stderr(run, arguments: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"usage: python -m service")


def test_a_closed_stdout_is_no_error(runtime_python: Path) -> None:
    line = [str(runtime_python), "-m", "service", "answer", "--question", "Who?", "--context-file", "-"]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            line, input=b"Ann", stdout=write, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
        )
    finally:
        os.close(write)
    assert done.stderr == b""
    assert done.returncode == 128 + signal.SIGPIPE


def test_build_time_packages_are_neither_installed_nor_imported(runtime_python: Path) -> None:
    script = f"""
import sys
import service.app
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from pathlib import Path
answerer = QuestionAnswerer(load_artifact(Path({str(MODEL)!r})))
assert answerer.answer([("Who?", "Ann wrote it.")])[0][0].answer
import service.gunicorn_conf, service.__main__
names = ("torch", "transformers", "optimum", "onnx", "sympy", "huggingface_hub", "export")
print([name for name in names if name in sys.modules])
import importlib.util
print([name for name in names[:-1] if importlib.util.find_spec(name)])
"""
    done = subprocess.run(
        [runtime_python, "-c", script], cwd=ROOT, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n[]\n"


def test_telemetry_of_libraries_is_off(runtime_python: Path) -> None:
    """ONNX Runtime's telemetry starts a thread at import unless it is off."""
    script = "import service, os, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [runtime_python, "-c", script], cwd=ROOT, capture_output=True, text=True, env=environment()
    )
    assert done.stdout == "1\n"
