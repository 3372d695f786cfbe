"""Owns the HTML report: one file, no script, plots as SVG; measures nothing."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.bench.load import Measurement, Plan

_COLOURS = ("#1f6feb", "#d1480f", "#1a7f37", "#8250df", "#9a6700", "#57606a", "#bf3989", "#0a7ea4")
_WIDTH, _HEIGHT, _MARGIN = 640, 320, 56
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1f2328}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .7rem;"
    "text-align:right;border-bottom:1px solid #d1d9e0}td:first-child,th:first-child{text-align:left}"
    "svg{max-width:100%;height:auto}figure{margin:1.5rem 0}"
)

Points = Sequence[tuple[float, float]]


def render(report: Mapping[str, Any], results: Sequence[tuple[Any, Measurement]]) -> str:
    """The report as a self-contained HTML page."""
    rows = report["scenarios"]
    loads = [row for row in rows if row["tokens"] is None and row["rate"] is None]
    lengths = [row for row in rows if row["tokens"] is not None]
    cdf = {
        f"{scenario.target}, {_load(scenario.plan)}": _cdf(measured.latencies())
        for scenario, measured in results
        if scenario.tokens is None
    }
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>qa-onnx benchmark</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        "<h1>qa-onnx benchmark</h1>",
        _facts("Machine", report["machine"]),
        _facts("Model", report["model"]),
        _facts("Questions", report["questions"]),
        _facts("Memory", report["memory"] or {"": "not known on this system"}),
        "<h2>Figures</h2>",
        _table(rows),
        "<h2>Latency</h2>",
        chart("Share of questions answered within", "ms", "share", cdf),
        "<h2>Throughput</h2>",
        chart("Answers per second by callers", "callers", "answers/s", _by(loads, "callers", "per_second")),
    ]
    if lengths:
        parts += [
            "<h2>Length</h2>",
            chart("Median latency by tokens", "tokens", "ms", _by(lengths, "tokens", "p50")),
        ]
    return "\n".join(parts) + "</html>\n"


def chart(title: str, x_label: str, y_label: str, lines: Mapping[str, Points]) -> str:
    """A line chart with linear axes from zero and a legend."""
    lines = {name: points for name, points in lines.items() if points}
    x_top = _top([x for points in lines.values() for x, _ in points])
    y_top = _top([y for points in lines.values() for _, y in points])
    plot_width, plot_height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def place(x: float, y: float) -> str:
        return f"{_MARGIN + plot_width * x / x_top:.1f},{_HEIGHT - _MARGIN - plot_height * y / y_top:.1f}"

    drawn = [
        f"<figure><svg viewBox='0 0 {_WIDTH} {_HEIGHT + 18 * len(lines)}' role=img font-size=12>",
        f"<title>{html.escape(title)}</title>",
        f"<text x={_MARGIN} y=24 font-size=14>{html.escape(title)}</text>",
    ]
    for step in range(5):
        x, y = x_top * step / 4, y_top * step / 4
        left, bottom = place(0, y).split(",")
        right, _ = place(x_top, y).split(",")
        across, _ = place(x, 0).split(",")
        drawn += [
            f"<path d='M{left} {bottom}H{right}' stroke=#d1d9e0 />",
            f"<text x={_MARGIN - 6} y={float(bottom) + 4} text-anchor=end>{y:g}</text>",
            f"<text x={across} y={_HEIGHT - _MARGIN + 16} text-anchor=middle>{x:g}</text>",
        ]
    drawn += [
        f"<text x={_WIDTH - _MARGIN} y={_HEIGHT - 24} text-anchor=end>{html.escape(x_label)}</text>",
        f"<text x=4 y={_MARGIN - 12}>{html.escape(y_label)}</text>",
    ]
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = " stroke-dasharray='6 3'" if number >= len(_COLOURS) else ""  # colours repeat
        path = " ".join(place(x, y) for x, y in points)
        below = _HEIGHT + 18 * number
        drawn += [
            f"<polyline points='{path}' fill=none stroke={colour} stroke-width=2{dash} />",
            *(
                f"<circle cx={place(x, y).split(',')[0]} cy={place(x, y).split(',')[1]} r=3 fill={colour} />"
                for x, y in (points if len(points) <= 20 else ())
            ),
            f"<path d='M{_MARGIN} {below}h18' stroke={colour} stroke-width=3{dash} />",
            f"<text x={_MARGIN + 26} y={below + 4}>{html.escape(name)}</text>",
        ]
    return "".join(drawn) + "</svg></figure>"


def _top(values: Sequence[float]) -> float:
    """Upper end of an axis: the next 1, 2, 4 or 8 times a power of ten."""
    largest = max(values, default=0.0)
    if largest <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(largest))
    return float(next(step * power for step in (1, 2, 4, 8, 10) if step * power >= largest))


def _cdf(ordered: Sequence[float]) -> Points:
    """At most 200 points of the distribution, up to the 99th percentile."""
    count = max(1, int(len(ordered) * 0.99)) if ordered else 0
    step = max(1, count // 200)
    return [(ordered[i], (i + 1) / len(ordered)) for i in range(0, count, step)]


def _by(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> dict[str, Points]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row[y] is not None:
            lines.setdefault(row["target"], []).append((row[x], row[y]))
    return {name: sorted(points) for name, points in lines.items()}


def _load(plan: Plan) -> str:
    if plan.rate:
        return f"{plan.rate:g} per second"
    return f"{plan.callers} caller" + "s" * (plan.callers > 1)


def _facts(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}<td style='text-align:left'>{html.escape(_text(value))}"
        for name, value in values.items()
    )
    return f"<h2>{title}</h2><table>{rows}</table>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_text(row.get(name)))}" for name in names) for row in rows
    )
    return f"<div style='overflow-x:auto'><table><tr>{head}{body}</table></div>"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items() if entry is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
