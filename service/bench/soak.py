"""Owns the soak test: mixed load, each reply compared with the engine's answer; tunes nothing."""

import argparse
import http.client
import itertools
import json
import random
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from service.bench.machine import pss_mb
from service.bench.targets import server
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.probes import probes
from service.settings import Settings

_CLIENTS = 32
# Approximate tokens of contexts; about 1% of the requests have a long one.
_SHORT = (1, 10, 40, 100, 200, 400)
_LONG = (1_000, 3_000, 20_000)
_DISTINCT = 200
# Bodies up to this size count for the latency figures: long documents queue behind each other.
_SHORT_BYTES = 10_000
# Number of intervals with their own figures; the first ones are the warm-up.
_PARTS = 10
_WARM_UP = 2
# Allowed relative growth of p99, checked in runs of at least so many minutes: the intervals of shorter runs
# have too few requests.
_P99_GROWTH = 0.5
_JUDGED_MINUTES = 10
# Idle time before memory is read, until the scheduler has returned free memory (batching.py): under load the
# figure depends on which requests happen to run in parallel.
_IDLE_SECONDS = 2.5
# Tolerance of scores: floating-point sums depend on their order.
_SCORE = 1e-4
# Invalid requests and their status.
_WRONG: tuple[tuple[bytes, int], ...] = (
    (b"", 400),
    (b"{", 400),
    (b"[]", 422),
    (b'{"question": "Who?", "context": ""}', 422),
    (b'{"question": "Who?", "context": "Ann.", "parameters": {"top_k": 0}}', 422),
    (b'{"question": 1, "context": "Ann."}', 422),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A request and its expected reply: the status and, for 200, the JSON value."""

    body: bytes
    status: int
    answer: Any


@dataclass(slots=True)
class Part:
    """Figures of one interval: latencies of short requests in seconds, and idle memory after it in MB."""

    seconds: list[float] = field(default_factory=list)
    pss_mb: float = 0.0

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) > 1 else 0.0


def soak(settings: Settings, options: argparse.Namespace) -> int:
    """Print figures per interval and a summary; exit status 1 if a reply was wrong or a figure grew."""
    cases = _cases(settings)
    print(f"{len(cases)} distinct requests, expected answers from the engine on one thread", flush=True)
    # No request may be rejected because of the load, since answers are compared.
    flags = [
        "--max-waiting",
        str(_CLIENTS),
        "--max-waiting-tokens",
        str(1 << 30),
        "--deadline-seconds",
        "600",
    ]
    with server(
        [*flags, "--model", str(settings.model), "--kernel" if settings.kernel else "--no-kernel"]
    ) as (
        address,
        pid,
    ):
        parts, wrong = _run(cases, address, pid, options.minutes * 60, options.requests)
    judged = not options.requests and options.minutes >= _JUDGED_MINUTES
    return _report(parts, wrong, options.growth, judged=judged)


def _cases(settings: Settings) -> list[Case]:
    """Requests of all kinds in a fixed order, with their expected replies."""
    answerer = QuestionAnswerer(load_artifact(settings.model), threads=1, kernel=settings.kernel)
    chance = random.Random(0)  # noqa: S311 - the same cases each time, not secrets
    texts = probes()
    words = " ".join(context for _, context in texts).split()

    def question(tokens: int) -> dict[str, str]:
        start = chance.randrange(len(words))
        chosen = itertools.islice(itertools.cycle(words), start, start + tokens)
        return {"question": chance.choice(texts)[0], "context": " ".join(chosen)}

    def answer(item: dict[str, str]) -> dict[str, Any]:
        ((found,),) = answerer.answer([(item["question"], item["context"])])
        return asdict(found)

    cases = [Case(body, status, None) for body, status in _WRONG]
    for tokens in _LONG:
        item = question(tokens)
        cases.append(Case(json.dumps(item).encode(), 200, answer(item)))
    while len(cases) < _DISTINCT:
        items = [question(chance.choice(_SHORT)) for _ in range(chance.choice((1, 1, 1, 3)))]
        many = len(items) > 1
        answers = [answer(item) for item in items]
        body = json.dumps(items if many else items[0]).encode()
        cases.append(Case(body, 200, answers if many else answers[0]))
    return cases


def _run(
    cases: list[Case], address: str, pid: int, seconds: float, requests: int
) -> tuple[list[Part], list[str]]:
    """Run all clients, interval by interval; memory is read after an idle time at the end of each."""
    url = urlsplit(address)
    clients = [
        (http.client.HTTPConnection(str(url.hostname), url.port, timeout=600), random.Random(seed))  # noqa: S311 - as above
        for seed in range(_CLIENTS)
    ]
    parts: list[Part] = []
    wrong: list[str] = []
    for number in range(_PARTS):
        part = Part()
        counter = itertools.count()
        ends = time.monotonic() + seconds / _PARTS

        def ask(
            connection: http.client.HTTPConnection,
            chance: random.Random,
            part: Part = part,
            counter: Iterator[int] = counter,
            ends: float = ends,
        ) -> None:
            while next(counter) < requests // _PARTS if requests else time.monotonic() < ends:
                case = chance.choice(cases)
                start = time.monotonic()
                fault = _ask(connection, case)
                if fault:
                    wrong.append(fault)
                    connection.close()
                elif len(case.body) < _SHORT_BYTES:
                    part.seconds.append(time.monotonic() - start)

        threads = [threading.Thread(target=ask, args=client) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(_IDLE_SECONDS)
        part.pss_mb = pss_mb(pid)
        parts.append(part)
        print(_line(number, part), flush=True)
    for connection, _ in clients:
        connection.close()
    return parts, wrong


def _ask(connection: http.client.HTTPConnection, case: Case) -> str:
    """Send a request; returns a description of what is wrong with the reply, or ""."""
    try:
        connection.request("POST", "/predict", case.body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no reply: {error!r}"
    if response.status != case.status:
        return f"status {response.status} instead of {case.status}"
    if case.status == 200 and not _alike(json.loads(data), case.answer):
        return "not the answer of the engine"
    return ""


def _alike(found: Any, right: Any) -> bool:
    if isinstance(right, list):
        return len(found) == len(right) and all(map(_alike, found, right))
    same = all(found[name] == right[name] for name in ("answer", "start", "end"))
    return bool(same and abs(found["score"] - right["score"]) <= _SCORE)


def _line(number: int, part: Part) -> str:
    return (
        f"part {number + 1:2} of {_PARTS}: {len(part.seconds):6} short requests, "
        f"p99 {part.p99 * 1000:7.1f} ms, memory {part.pss_mb:6.1f} MB"
    )


def _report(parts: list[Part], wrong: list[str], allowed: float, *, judged: bool) -> int:
    """Print the summary; `judged` decides whether growing latency is a failure."""
    warm = parts[_WARM_UP:]
    half, third = len(warm) // 2, len(warm) // 3
    early = statistics.median(part.pss_mb for part in warm[:half])
    late = statistics.median(part.pss_mb for part in warm[half:])
    growth = late / early - 1 if early else 0.0
    first, last = (statistics.median(part.p99 for part in some) for some in (warm[:third], warm[-third:]))
    slower = last / first - 1 if first else 0.0
    print(f"{sum(len(part.seconds) for part in parts)} short requests, {len(wrong)} wrong replies of all")
    for fault in sorted(set(wrong)):
        print(f"  {wrong.count(fault)} x {fault}")
    print(f"memory after warm-up: {early:.1f} MB, later {late:.1f} MB ({growth:+.1%}, allowed {allowed:.0%})")
    limit = (
        f"allowed {_P99_GROWTH:.0%}" if judged else f"checked in runs of {_JUDGED_MINUTES} minutes or more"
    )
    latency = f"{first * 1000:.1f} ms, at the end {last * 1000:.1f} ms"
    print(f"p99 after warm-up: {latency} ({slower:+.1%}, {limit})")
    return 1 if wrong or growth > allowed or (judged and slower > _P99_GROWTH) else 0
