"""A run that is killed at any time and resumed writes the output of an uninterrupted run, byte for byte."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.bulk.conftest import ROOT, WRITERS, bulk, command, left_over, make_rows, read_jsonl, write_jsonl

COUNT = 3000


@pytest.fixture(scope="module", params=WRITERS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An input with some invalid rows, and the output of an uninterrupted run."""
    folder, kind = tmp_path_factory.mktemp("whole"), request.param
    rows = make_rows(COUNT)
    for number in range(7, COUNT, 500):
        rows[number]["context"] = ""
    source = WRITERS[kind](folder / f"in.{kind}", rows)
    output = folder / f"out.{kind}"
    assert bulk(source, output) == 0
    assert len(read_jsonl(folder / f"out.{kind}.errors.jsonl")) == COUNT // 500
    return source, output


def kill_at(process: subprocess.Popen[bytes], journal: Path, size: int) -> None:
    """Send SIGKILL once the journal has `size` bytes, or was deleted."""
    seen = False
    while process.poll() is None:
        try:
            found = journal.stat().st_size
        except FileNotFoundError:
            if seen:
                break
            found = 0
        seen = seen or found > 0
        if found >= size:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_repeatedly(whole: tuple[Path, Path], tmp_path: Path) -> None:
    source, expected = whole
    output = tmp_path / expected.name
    journal = tmp_path / f"{expected.name}.journal"
    size = 0
    for growth in (1, 20_000, 3_000, 30_000):
        process = subprocess.Popen(command(source, output), cwd=ROOT)
        kill_at(process, journal, size + growth)
        assert process.returncode == -signal.SIGKILL
        assert not output.exists()
        assert journal.stat().st_size >= size + growth  # it resumed
        size = journal.stat().st_size
    assert bulk(source, output) == 0
    assert output.read_bytes() == expected.read_bytes()
    errors = f"{expected.name}.errors.jsonl"
    assert (tmp_path / errors).read_bytes() == expected.with_name(errors).read_bytes()
    assert left_over(tmp_path, [output]) == {errors}


def test_killed_while_writing_the_output(whole: tuple[Path, Path], tmp_path: Path) -> None:
    source, expected = whole
    output = tmp_path / expected.name
    partial = tmp_path / f"{expected.name}.partial"
    os.mkfifo(partial)  # writing the output blocks
    process = subprocess.Popen(command(source, output), cwd=ROOT)
    with partial.open("rb") as reader:
        assert reader.read(10)
        process.kill()
        process.wait()
    partial.unlink()
    assert not output.exists()
    assert bulk(source, output) == 0
    assert output.read_bytes() == expected.read_bytes()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An input, the journal of a killed run, and the output of an uninterrupted one."""
    folder = tmp_path_factory.mktemp("begun")
    source = write_jsonl(folder / "in.jsonl", make_rows(COUNT))
    assert bulk(source, folder / "whole.jsonl") == 0
    journal = folder / "out.jsonl.journal"
    process = subprocess.Popen(command(source, folder / "out.jsonl"), cwd=ROOT)
    kill_at(process, journal, 50_000)
    return source, journal, folder / "whole.jsonl"


@pytest.mark.parametrize(
    "damage",
    [
        lambda held: held + b"1234",
        lambda held: held + held[-100:],
        lambda held: held + b"\0" * 5000 + b"\n",
        lambda held: held[:-1],
        lambda held: held[:-40] + b"x" + held[-39:],
        lambda held: held[:20_000] + b"\0" * 4096 + held[24_096:],
        lambda held: held[:10],
        lambda held: b"",
    ],
    ids=[
        "half a line",
        "a line's end",
        "zeros",
        "no line end",
        "a changed byte",
        "a lost page",
        "head",
        "empty",
    ],
)
def test_torn_journals(begun: tuple[Path, Path, Path], tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    """Damage that a power failure may cause."""
    source, journal, whole = begun
    (tmp_path / "out.jsonl.journal").write_bytes(damage(journal.read_bytes()))
    assert bulk(source, tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()


def test_a_journal_of_another_task_is_rejected(
    begun: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, journal, whole = begun
    shutil.copy(journal, tmp_path / "out.jsonl.journal")
    output, changed = tmp_path / "out.jsonl", tmp_path / "in.jsonl"
    changed.write_bytes(source.read_bytes().replace(b"built", b"found", 1))
    model = str(ROOT / "tests/models/tiny-fp32")
    for other, flags, name in (
        (changed, [], "input"),
        (source, ["--model", model], "model"),
        (source, ["--top-k", "2"], "parameters"),
        (source, ["--answer-column", "a"], "columns"),
        (source, ["--output-format", "predictions"], "format"),
    ):
        assert bulk(other, output, *flags) == 2
        assert f"to a run with another {name}:" in capsys.readouterr().err
    assert bulk(changed, output, "--restart") == 0
    assert len(read_jsonl(output)) == COUNT
    assert bulk(changed, output) == 2
    assert "already exists: --restart" in capsys.readouterr().err
    assert bulk(source, output, "--restart") == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_journal_without_outcomes_is_replaced(begun: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """It does not restrict the parameters of the next run."""
    source, journal, whole = begun
    head = json.loads(journal.read_bytes().splitlines()[0])
    head["parameters"]["top_k"] = 2
    (tmp_path / "out.jsonl.journal").write_text(json.dumps(head) + "\n")
    assert bulk(source, tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()


def test_a_foreign_file_is_not_overwritten(
    begun: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _, _ = begun
    foreign = tmp_path / "out.jsonl.journal"
    foreign.write_text("Dear diary,\n")
    assert bulk(source, tmp_path / "out.jsonl") == 2
    assert "is not the journal of a bulk run" in capsys.readouterr().err
    assert foreign.read_text() == "Dear diary,\n"


def test_one_run_at_a_time(
    begun: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _, whole = begun
    output = tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    os.mkfifo(partial)
    process = subprocess.Popen(command(source, output), cwd=ROOT)
    with partial.open("rb") as reader:  # blocks until the other run writes
        for flags in ([], ["--restart"]):
            assert bulk(source, output, *flags) == 2
            assert "Another run is using" in capsys.readouterr().err
        assert reader.read() == whole.read_bytes()
    assert process.wait() == 2  # fsync of a pipe fails
    partial.unlink(missing_ok=True)
    assert bulk(source, output) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_full_disk_loses_nothing(begun: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, _, whole = begun
    output = tmp_path / "out.jsonl"
    # Blocks of 512 bytes: too few for the journal, then for the output.
    for blocks in (10, whole.stat().st_size // 600):
        line = f"ulimit -f {blocks}; exec " + " ".join(command(source, output))
        done = subprocess.run(["/bin/sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].endswith("File too large.")
        assert left_over(tmp_path, []) == {"out.jsonl.journal"}
    assert bulk(source, output) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_an_input_modified_during_the_run_is_detected(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", make_rows(COUNT))
    output = tmp_path / "out.jsonl"
    process = subprocess.Popen(command(source, output), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out.jsonl.journal").exists():
        assert process.poll() is None
        time.sleep(0.001)
    with source.open("a") as file:
        file.write("{}\n")
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert "was changed while it was read" in stderr
    assert not output.exists()


def test_sigint_says_how_to_resume(tmp_path: Path) -> None:
    count = 10 * COUNT  # so that it is running when the signal arrives
    source = write_jsonl(tmp_path / "in.jsonl", make_rows(count))
    journal = tmp_path / "out.jsonl.journal"
    process = subprocess.Popen(
        command(source, tmp_path / "out.jsonl"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell inherit an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (journal.exists() and journal.stat().st_size > 10_000):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr == "qa-onnx: interrupted; run the same command to resume.\n"
    assert bulk(source, tmp_path / "out.jsonl") == 0
    assert len(read_jsonl(tmp_path / "out.jsonl")) == count
