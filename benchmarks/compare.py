"""Owns the comparison with peers: environments, interleaved passes, agreement; knows no peer's details.

`python -m benchmarks.compare --model HF_FOLDER --artifact ARTIFACT --squad FILE` builds an environment
per peer, runs the same questions in interleaved passes (A B C A B C), and writes RESULTS.md.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import results
from export.parity import squad_pairs
from service.engine.artifact import WEIGHTS_FILE
from service.engine.cpu import available_cpus

ROOT = Path(__file__).resolve().parent.parent
PEERS = (
    "qa_onnx_engine",
    "qa_onnx_service",
    "transformers_pipeline",
    "optimum_int8",
    "openvino_pipeline",
    "deepsparse_pipeline",
    "litserve_onnx",
    "mlserver_huggingface",
)
REFERENCE = "transformers_pipeline"
CLIENTS = (1, 4, 16)


@dataclass
class Running:
    """The worker process of a peer and its measurements."""

    name: str
    process: subprocess.Popen[str]
    start_seconds: float
    install_mb: float
    seconds: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in CLIENTS})
    memory_mb: float = 0.0

    def ask(self, **request: object) -> Any:
        """Send one request to the worker; returns its reply."""
        assert self.process.stdin is not None  # noqa: S101 - opened as pipes
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{self.name} died while it was asked to {request['do']}")
        return json.loads(line)

    def stop(self) -> None:
        """Close the worker's stdin, so that it stops its server and exits."""
        assert self.process.stdin is not None  # noqa: S101 - opened as a pipe
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class PeerError(Exception):
    """A peer failed to install, start or answer."""


def main() -> int:
    """Install, measure, write the results; a peer that fails is reported as failed."""
    options = _options()
    pairs = _questions(options.squad, options.questions)
    options.work.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    running: list[Running] = []
    try:
        for name in options.peers:
            print(f"{name}: installing", file=sys.stderr, flush=True)
            try:
                running.append(_start(name, _install(name, options.work), options))
                print(f"{name}: answers {running[-1].start_seconds:.1f} s after its start", file=sys.stderr)
            except PeerError as error:
                failed[name] = str(error)
                print(f"{name}: failed, {error}", file=sys.stderr)
        _measure(running, pairs, options)
    finally:
        for peer in running:
            peer.stop()
    report = _report(running, failed, pairs, options)
    options.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    options.output.write_text(results.markdown(report), encoding="utf-8")
    options.output.with_suffix(".svg").write_text(results.plot(report), encoding="utf-8")
    results.insert(ROOT / "README.md", "peers", results.table(report))
    print(options.output.read_text())
    return 0


def _measure(running: list[Running], pairs: list[tuple[str, str]], options: argparse.Namespace) -> None:
    for peer in running:
        peer.ask(do="ask", items=pairs[:20])  # warm-up
    for number in range(options.rounds):
        for peer in running:
            print(f"round {number + 1}: {peer.name}", file=sys.stderr, flush=True)
            time.sleep(0.5)  # until the threads of the previous peer have stopped spinning
            reply = peer.ask(do="ask", items=pairs)
            peer.seconds += reply["seconds"]
            peer.answers = reply["answers"]
        for clients in CLIENTS:
            for peer in running:
                time.sleep(0.5)
                rate = peer.ask(do="throughput", items=pairs, clients=clients, seconds=options.seconds)
                peer.rates[clients].append(rate)
    for peer in running:
        peer.memory_mb = peer.ask(do="memory")


def _install(name: str, work: Path) -> Path:
    """The interpreter of the peer's environment, which is reused while its pins are unchanged."""
    if name.startswith("qa_onnx"):
        venv = work / "qa_onnx"
        _run([str(ROOT / "deploy/install.sh"), "runtime", str(venv)])
        return venv / "bin/python"
    peer = import_module(f"benchmarks.peers.{name}")
    pins = peer.REQUIREMENTS
    venv = work / f"{name}-{hashlib.sha256(' '.join(pins).encode()).hexdigest()[:8]}"
    python = venv / "bin/python"
    if not (venv / "done").exists():
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)])
        torch = [pin for pin in pins if pin.startswith("torch==")]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if torch and sys.platform == "linux":  # PyPI's Linux wheels require gigabytes of CUDA
            index = os.environ.get("TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
            _run([*install, "--no-deps", "--index-url", index, "--retries", "1", f"{torch[0]}+cpu"])
        _run([*install, *pins])
        if unwanted := getattr(peer, "UNWANTED", []):
            _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *unwanted])
        (venv / "done").touch()
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines
        raise PeerError(f"not installable: {errors[-1][:200]}")


def _start(name: str, python: Path, options: argparse.Namespace) -> Running:
    folder = options.work / f"{name}.work"
    folder.mkdir(exist_ok=True)
    settings = {
        "model": str(options.model.resolve()),
        "artifact": str(options.artifact.resolve()),
        "threads": options.threads,
        "work": str(folder.resolve()),
        "port": _free_port(),
    }
    log = (folder / "log").open("w")
    begin = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - this project's worker
        [str(python), "-m", "benchmarks.worker", name, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)},
    )
    assert process.stdout is not None  # noqa: S101 - opened as a pipe
    if process.stdout.readline() != '"ready"\n':
        process.wait()
        lines = (folder / "log").read_text(errors="replace").strip().splitlines() or ["no message"]
        errors = [line for line in lines if "Error: " in line] or lines
        raise PeerError(f"does not start: {errors[-1][:200]}")
    seconds = time.perf_counter() - begin
    size = sum(file.lstat().st_size for file in python.parent.parent.rglob("*") if not file.is_dir())
    return Running(name, process, seconds, size / 1e6)


def _report(
    running: list[Running], failed: dict[str, str], pairs: list[tuple[str, str]], options: argparse.Namespace
) -> dict[str, Any]:
    reference = next((peer.answers for peer in running if peer.name == REFERENCE), None)
    rows = []
    for peer in running:
        module = import_module(f"benchmarks.peers.{peer.name}")
        ordered = sorted(second * 1000 for second in peer.seconds)
        rows.append(
            {
                "peer": peer.name,
                "title": module.TITLE,
                "over": module.OVER,
                "p50_ms": statistics.median(ordered),
                "p95_ms": ordered[int(0.95 * (len(ordered) - 1))],
                "per_second": {str(n): statistics.median(rates) for n, rates in peer.rates.items()},
                "pss_mb": peer.memory_mb,
                "start_seconds": peer.start_seconds,
                "install_mb": peer.install_mb,
                "same_answers": None
                if reference is None
                else sum(a == b for a, b in zip(peer.answers, reference, strict=True)) / len(pairs),
            }
        )
    return {
        "machine": results.machine(options.threads),
        "questions": len(pairs),
        "rounds": options.rounds,
        "command": "python -m benchmarks.compare --model HF_FOLDER --artifact ARTIFACT --squad FILE "
        f"--questions {options.questions} --rounds {options.rounds} --seconds {options.seconds:g} "
        f"--threads {options.threads}",
        "artifact_sha256": hashlib.sha256((options.artifact / WEIGHTS_FILE).read_bytes()).hexdigest(),
        "peers": rows,
        "failed": {import_module(f"benchmarks.peers.{n}").TITLE: reason for n, reason in failed.items()},
    }


def _questions(file: Path, count: int) -> list[tuple[str, str]]:
    pairs = squad_pairs(file)
    return random.Random(0).sample(pairs, min(count, len(pairs)))  # noqa: S311 - a sample, not a secret


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, type=Path, help="Hugging Face folder")
    add("--artifact", required=True, type=Path, help="the same weights, exported by this project")
    add("--squad", required=True, type=Path, help="a SQuAD file to take the questions from")
    add("--questions", type=int, default=60, help="size of the seeded sample (default 60)")
    add("--rounds", type=int, default=3, help="interleaved passes (default 3)")
    add("--seconds", type=float, default=5.0, help="of each throughput measurement (default 5)")
    add("--threads", type=int, default=available_cpus(), help="per peer (default: all allowed)")
    add("--work", type=Path, default=ROOT / "build/peers", help="where the environments go")
    add("--output", type=Path, default=ROOT / "benchmarks/RESULTS.md")
    add("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
