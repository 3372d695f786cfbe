"""Owns the latency of each protocol relative to the native one; knows no reply format.

`python -m benchmarks.protocols --model ARTIFACT [--squad FILE]` sends the same questions to one server by
each protocol, interleaved, and prints the differences of medians. With `--before CHECKOUT` it also starts the
server of that checkout and compares the native protocol of both, with 1 and 16 clients, in alternating
rounds.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.bench.connections import HttpTarget
from service.bench.load import Plan
from service.bench.workload import Item, load
from service.engine.artifact import load_artifact
from service.engine.cpu import available_cpus, cpu_model

ROOT = Path(__file__).resolve().parent.parent
VERTEX = "/vertex"
CLIENTS = (1, 16)

# Path, body and headers of one question.
Shape = Callable[[Item], tuple[str, bytes, Mapping[str, str]]]
_JSON = {"Content-Type": "application/json"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.protocols", description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models/default", help="an artifact")
    parser.add_argument("--squad", type=Path, help="a SQuAD file (default: built-in questions)")
    parser.add_argument("--questions", type=int, default=40, help="asked in each round")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--before", type=Path, help="another checkout, with .venv, to compare with")
    options = parser.parse_args()
    items = load(options.squad, load_artifact(options.model))[: options.questions]
    print(f"{cpu_model()}, {available_cpus()} CPUs, {len(items)} questions, {options.rounds} rounds")
    with _server(ROOT, options.model, "--vertex-predict-route", VERTEX) as address:
        _compare_protocols(address, items, options.rounds)
        if options.before:
            with _server(options.before, options.model) as before:
                _compare_checkouts(before, address, items, options.rounds)
    return 0


def _compare_protocols(address: str, items: Sequence[Item], rounds: int) -> None:
    shapes = _shapes("model")
    times: dict[str, list[list[float]]] = {name: [[] for _ in items] for name in shapes}
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    for round_ in range(rounds + 1):
        for number, item in enumerate(items):
            for name, shape in shapes.items():
                path, body, headers = shape(item)
                begin = time.perf_counter()
                connection.request("POST", path, body, dict(headers))
                response = connection.getresponse()
                told = response.read()
                if round_:  # the first one warms up
                    times[name][number].append(time.perf_counter() - begin)
                if response.status != http.client.OK:
                    sys.exit(f"{name} was refused: {told.decode()}")
    connection.close()
    native = times.pop("native")
    print(f"native: {statistics.median(t for own in native for t in own) * 1000:.3f} ms")
    for name, own in times.items():
        # Differences per question, so that question length cancels out.
        medians = [statistics.median(a) - statistics.median(b) for a, b in zip(own, native, strict=True)]
        print(f"{name}: {statistics.median(medians) * 1000:+.3f} ms")


def _compare_checkouts(before: str, after: str, items: Sequence[Item], rounds: int) -> None:
    targets = [HttpTarget(before), HttpTarget(after)]
    for clients in CLIENTS:
        plan = Plan(clients, seconds=2.0)
        ratios = []
        for _ in range(rounds):
            rates = [target.measure(items, plan, lambda _: None).per_second() for target in targets]
            ratios.append(rates[0] / rates[1])
        print(f"plain question, {clients} clients: {statistics.median(ratios) - 1:+.1%} time against before")


def _shapes(model: str) -> dict[str, Shape]:
    def pair(item: Item) -> dict[str, str]:
        return {"question": item.question, "context": item.context}

    def shape(path: str, body: Callable[[Item], Any], headers: Mapping[str, str] = _JSON) -> Shape:
        return lambda item: (path, json.dumps(body(item)).encode(), headers)

    def tensors(item: Item) -> dict[str, Any]:
        return {"inputs": [_tensor(name) | {"data": [text]} for name, text in pair(item).items()]}

    def binary(item: Item) -> tuple[str, bytes, Mapping[str, str]]:
        texts = {name: text.encode() for name, text in pair(item).items()}
        parts = [len(text).to_bytes(4, "little") + text for text in texts.values()]
        inputs = [
            _tensor(name) | {"parameters": {"binary_data_size": len(part)}}
            for name, part in zip(texts, parts, strict=True)
        ]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        return f"/v2/models/{model}/infer", b"".join((head, *parts)), length

    return {
        "native": shape("/predict", pair),
        "Hugging Face": shape("/", lambda i: {"inputs": pair(i)}, _JSON | {"User-Agent": "x; hf_hub/2.0"}),
        "Open Inference, JSON": shape(f"/v2/models/{model}/infer", tensors),
        "Open Inference, binary": binary,
        "SageMaker, JSON": shape("/invocations", pair),
        "SageMaker, JSON Lines": shape("/invocations", pair, {"Content-Type": "application/jsonlines"}),
        "Vertex AI": shape(VERTEX, lambda item: {"instances": [pair(item)]}),
    }


def _tensor(name: str) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": "BYTES"}


@contextmanager
def _server(root: Path, model: Path, *flags: str) -> Iterator[str]:
    """Run the server of the checkout `root` in its own run-time environment; yields its URL."""
    named = ["--model-name", "model"] if root == ROOT else []
    python = str(root / ".venv/bin/python")
    command = [python, "-m", "service", "serve", "--port", "0", "--model", str(model.resolve())]
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - the project's own program
                [*command, *named, *flags], cwd=root, stdout=file, stderr=file
            )
        try:
            while " at http" not in (text := log.read_text()):
                if process.poll() is not None:
                    sys.exit(f"The server of {root} did not start: {text}")
                time.sleep(0.05)
            yield next(line for line in text.splitlines() if " at http" in line).rsplit(" at ", 1)[1]
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
