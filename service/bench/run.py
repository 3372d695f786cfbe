"""Owns the scenarios of a benchmark and their report; knows no HTTP detail."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tqdm import tqdm

from service.batching import Scheduler
from service.bench import callers, machine, page
from service.bench.connections import HttpTarget
from service.bench.load import Measurement, Plan, Progress
from service.bench.targets import EngineTarget, SessionTarget, server
from service.bench.workload import Item, load, of_length
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import WEIGHTS_FILE, load_artifact
from service.settings import Settings

# Maximum requests in flight of an open loop, more than any server should queue.
_OPEN_LOOP_CALLERS = 256

Measure = Callable[[Sequence[Item], Plan, Progress], Measurement]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the report. `tokens`: length of the questions, None for their own.

    `times`: arrival rate as a multiple of the best throughput of the target's closed loops.
    """

    target: str
    plan: Plan
    tokens: int | None = None
    times: float | None = None


def bench(settings: Settings, options: argparse.Namespace) -> int:
    """Measure, print the table, write the reports; exit status 1 if a question failed."""
    artifact = load_artifact(settings.model)
    items = load(options.questions, artifact)
    workloads = {None: items} | {tokens: of_length(items, tokens, artifact) for tokens in options.lengths}
    answerer = QuestionAnswerer.with_settings(artifact, settings, concurrent=True)
    with ExitStack() as stack:
        targets: dict[str, Measure] = {}
        pid = os.getpid()
        if options.mode in ("engine", "both"):
            scheduler = Scheduler(answerer, max_waiting=1 << 30, max_waiting_tokens=1 << 60)
            everything = [item for asked in workloads.values() for item in asked]
            session = SessionTarget(answerer, scheduler, everything)
            targets["session"] = partial(callers.measure, session.ask)
            targets["engine"] = partial(callers.measure, EngineTarget(answerer, scheduler).ask)
        if options.mode in ("http", "both"):
            url, pid = options.url, 0
            if url is None:
                url, pid = stack.enter_context(server(_flags(settings)))
            targets["http"] = HttpTarget(url, options.deadline).measure
        results: list[tuple[Scenario, Measurement]] = []
        scenarios = list(_scenarios(targets, options))
        total = sum(s.plan.warm_up + s.plan.seconds for s in scenarios)
        with tqdm(total=total, unit="s", bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s {desc}") as bar:
            done = 0.0
            for scenario in scenarios:
                bar.set_postfix_str(scenario.target, refresh=False)
                before = done

                def progress(seconds: float, before: float = before) -> None:
                    bar.update(before + seconds - bar.n)

                if scenario.times is not None:
                    rate = round(scenario.times * _peak(results, scenario.target), 1)
                    scenario = replace(scenario, plan=replace(scenario.plan, rate=rate))
                measure = targets[scenario.target]
                results.append((scenario, measure(workloads[scenario.tokens], scenario.plan, progress)))
                done += scenario.plan.warm_up + scenario.plan.seconds
        used = machine.memory(pid) if pid else None
    report = _report(settings, items, options, results, used, answerer)
    print(_table(results))
    if used:
        print(f"memory: PSS {used['pss_mb']} MB, RSS of the largest process {used['rss_mb']} MB")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.html:
        options.html.write_text(page.render(report, results), encoding="utf-8")
    summaries = [measured.summary() for _, measured in results]
    if failed := sum(int(summary["failed"] or 0) for summary in summaries):
        print(f"{failed} questions got neither an answer nor a rejection.", file=sys.stderr)
    return 1 if failed or not all(summary["answered"] for summary in summaries) else 0


def _scenarios(targets: dict[str, Measure], options: argparse.Namespace) -> Iterator[Scenario]:
    """Closed loops, open loops, overload, lengths; the targets alternate, so that drift affects all alike."""
    plan = Plan(callers=1, seconds=options.seconds, warm_up=options.warm_up)
    for count in options.concurrency:
        for name in targets:
            yield Scenario(name, replace(plan, callers=count))
    for rate in options.rate:
        for name in targets:
            if name != "session":
                yield Scenario(name, replace(plan, callers=_OPEN_LOOP_CALLERS, rate=rate))
    for times in options.overload if "http" in targets else ():
        yield Scenario("http", replace(plan, callers=_OPEN_LOOP_CALLERS), times=times)
    for tokens in options.lengths:
        for name in targets:
            yield Scenario(name, plan, tokens)


def _peak(results: Sequence[tuple[Scenario, Measurement]], target: str) -> float:
    """Maximum throughput of the target's closed loops."""
    loops = [found.summary() for scenario, found in results if scenario.target == target]
    return max(float(loop["per_second"] or 1) for loop in loops if loop["rate"] is None)


def _flags(settings: Settings) -> list[str]:
    """Flags for the measured server; it reads the other settings from the environment."""
    return [
        *("--model", str(settings.model), "--threads", str(settings.threads)),
        *("--token-budget", str(settings.token_budget)),
        "--kernel" if settings.kernel else "--no-kernel",
    ]


def _report(
    settings: Settings,
    items: Sequence[Item],
    options: argparse.Namespace,
    results: Sequence[tuple[Scenario, Measurement]],
    used: dict[str, float] | None,
    answerer: QuestionAnswerer,
) -> dict[str, Any]:
    manifest = answerer.artifact.manifest
    return {
        "machine": machine.facts(),
        "model": {
            "path": str(settings.model),
            "source": manifest["source"],
            "recipe": manifest.get("recipe"),
            "sha256": manifest["files"][WEIGHTS_FILE]["sha256"],
            "threads": answerer.threads,
            "graph": answerer.graph.name,
        },
        "questions": {
            "file": str(options.questions) if options.questions else "built in",
            "count": len(items),
            "mean_tokens": round(sum(item.tokens for item in items) / len(items), 1),
        },
        "memory": used,
        "scenarios": [
            {"target": scenario.target, "tokens": scenario.tokens, **measured.summary()}
            for scenario, measured in results
        ],
    }


def _table(results: Sequence[tuple[Scenario, Measurement]]) -> str:
    names = ("p50", "p90", "p95", "p99", "max")
    lines = [
        f"{'target':<9}{'load':<15}{'tokens':>7}{'answers/s':>11}"
        + "".join(f"{name + ' ms':>10}" for name in names)
        + f"{'refused':>9}{'p99 ms':>8}{'failed':>8}"
    ]
    for scenario, measured in results:
        figures = measured.summary()
        plan = scenario.plan
        load = f"{plan.callers} caller{'s' * (plan.callers > 1)}"
        if plan.rate:
            load = f"{'' if scenario.times is None else f'{scenario.times:g}x, '}{plan.rate:g}/s"
        lines.append(
            f"{scenario.target:<9}{load:<15}{scenario.tokens or '-':>7}{figures['per_second']:>11.1f}"
            + "".join(f"{'-' if figures[n] is None else format(figures[n], '.2f'):>10}" for n in names)
            + f"{figures['refused']:>9}"
            + f"{format(figures['refused_p99'], '.2f') if figures['refused'] else '-':>8}"
            + f"{figures['failed']:>8}"
        )
    return "\n".join(lines)
