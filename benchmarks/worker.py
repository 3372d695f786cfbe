"""Owns the worker process in a peer's environment: starts the peer, runs and times the requests of `compare`.

`python -m benchmarks.worker PEER SETUP_JSON` communicates in JSON Lines over stdin and stdout. It uses only
the standard library, since every peer has an environment of its own.
"""

import http.client
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Answerer = Callable[[str, str], str]
_START_SECONDS, _STOP_SECONDS = 60, 10


@dataclass(frozen=True)
class Setup:
    """The input of a peer: the same weights and threads for all, a folder and a port of its own."""

    model: str  # Hugging Face folder
    artifact: str  # the same weights, exported by this project
    threads: int
    work: Path
    port: int
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_server(
        self, command: list[str], *, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a server that is stopped with this worker, together with its child processes."""
        server = subprocess.Popen(  # noqa: S603 - the peer
            command, stdout=sys.stderr, env=environment, cwd=folder, start_new_session=True
        )
        self.servers.append(server)
        return server

    def stop(self) -> None:
        """Terminate the whole process group, since some servers leave child processes behind."""
        for server in self.servers:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(_STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def http_answerer(
    server: subprocess.Popen[bytes],
    port: int,
    path: str,
    ask: Callable[[str, str], object] = lambda question, context: {"question": question, "context": context},
    read: Callable[[Any], str] = lambda body: str(body["answer"]),
) -> Answerer:
    """A function that asks a local server over one keep-alive connection per thread; waits until it answers.

    Raises the exception of the request if `server` exits before that.
    """
    local = threading.local()

    def answer(question: str, context: str) -> str:
        body = json.dumps(ask(question, context)).encode()
        known = getattr(local, "connection", None)
        connection = known or http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        local.connection = connection
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            local.connection = None
            if known is None:
                raise
            return answer(question, context)  # servers may close idle connections
        if response.status != http.client.OK:
            raise ConnectionError(f"status {response.status}")
        return read(json.loads(data))

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            answer("Who?", "Ann wrote it.")
            return answer
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.02)


def throughput(answer: Answerer, items: list[list[str]], clients: int, seconds: float) -> float:
    """Answers per second of a closed loop with `clients`."""
    counter = itertools.count()
    done = [0] * clients
    begin = time.perf_counter()

    def client(number: int) -> None:
        while time.perf_counter() - begin < seconds:
            answer(*items[next(counter) % len(items)])
            done[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begin)


def memory(pids: list[int]) -> float:
    """Total PSS in MB of processes and their descendants."""
    total, found = 0, list(pids)
    while found:
        pid = found.pop()
        try:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Pss:"))
    return total * 1024 / 1e6


def _serve(setup: Setup, answer: Answerer, requests: Any, replies: Any) -> None:
    for line in requests:
        asked = json.loads(line)
        reply: object
        if asked["do"] == "ask":
            answers, seconds = [], []
            for question, context in asked["items"]:
                begin = time.perf_counter()
                answers.append(answer(question, context))
                seconds.append(time.perf_counter() - begin)
            reply = {"answers": answers, "seconds": seconds}
        elif asked["do"] == "throughput":
            reply = throughput(answer, asked["items"], asked["clients"], asked["seconds"])
        else:
            # For a server, memory excludes this client process.
            reply = memory([server.pid for server in setup.servers] or [os.getpid()])
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Start the peer, report it, and process requests until stdin is closed."""
    peer, settings = sys.argv[1], json.loads(sys.argv[2])
    # Output of libraries must not mix with the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    setup = Setup(**settings | {"work": Path(settings["work"])})
    try:
        answer = importlib.import_module(f"benchmarks.peers.{peer}").start(setup)
        answer("Who wrote it?", "Ann wrote it in 1931.")
        replies.write('"ready"\n')
        replies.flush()
        _serve(setup, answer, sys.stdin, replies)
    finally:
        setup.stop()


if __name__ == "__main__":
    main()
