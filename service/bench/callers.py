"""Owns the in-process load generator, a thread per caller; knows no scenario."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from service.bench.load import OK, Measurement, Plan, Progress, Sample
from service.bench.workload import Item


def measure(
    ask: Callable[[Item], object], items: Sequence[Item], plan: Plan, progress: Progress = lambda _: None
) -> Measurement:
    """Ask `items` cyclically from `plan.callers` threads; `ask` blocks until the answer is there."""
    counter = itertools.count()
    samples: list[list[Sample]] = [[] for _ in range(plan.callers)]
    begin = time.perf_counter()

    def call(own: list[Sample]) -> None:
        while True:
            number = next(counter)  # atomic under the GIL
            now = time.perf_counter() - begin
            due = plan.due(number, now)
            if due >= plan.total:
                return
            if due > now:
                time.sleep(due - now)
            ask(items[number % len(items)])
            own.append(plan.sample(due, time.perf_counter() - begin, OK, {}))

    threads = [threading.Thread(target=call, args=(own,), daemon=True) for own in samples]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.25)
            progress(min(time.perf_counter() - begin, plan.total))
    return Measurement(plan, [sample for own in samples for sample in own])
