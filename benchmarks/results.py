"""Owns the text and the plot of measurements, and their insertion into pages; measures nothing."""

import platform
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from service.engine.cpu import cpu_flags, cpu_model


def machine(threads: int) -> str:
    """One line that describes the machine."""
    vnni = "VNNI" if {"avx512_vnni", "avx_vnni"} & cpu_flags() else "no VNNI"
    return f"{cpu_model()} ({vnni}), {threads} threads, {platform.system()} {platform.machine()}"


def markdown(report: Mapping[str, Any]) -> str:
    """The text of RESULTS.md."""
    lines = [
        "# Peers",
        "",
        (
            f"{report['machine']}. {report['questions']} questions of SQuAD v1.1 dev (a seeded sample), "
            f"{report['rounds']} rounds, interleaved in one run, the same weights and thread count, "
            "the peers' own defaults for lengths, no caches of answers. Latency is of one caller; memory is "
            "the PSS of all processes of the peer, without the client for servers."
        ),
        "",
        "```",
        str(report["command"]),
        "```",
        "",
        table(report),
        "",
        "![p50 latency](RESULTS.svg)",
        "",
    ]
    if report["failed"]:
        lines += ["Peers that could not be measured:", ""]
        lines += [f"- {title}: {reason}" for title, reason in report["failed"].items()]
        lines.append("")
    return "\n".join(lines)


def table(report: Mapping[str, Any]) -> str:
    """The table of figures, fastest first."""
    lines = [
        (
            "| | over | p50 ms | p95 ms | answers/s with 1, 4, 16 clients | memory MB | start s | install MB "
            "| same answers |"
        ),
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(report["peers"], key=lambda row: row["p50_ms"]):
        rates = ", ".join(f"{rate:.0f}" for rate in row["per_second"].values())
        same = "-" if row["same_answers"] is None else f"{row['same_answers']:.0%}"
        lines.append(
            f"| {row['title']} | {row['over']} | {row['p50_ms']:.1f} | {row['p95_ms']:.1f} | {rates} "
            f"| {row['pss_mb']:.0f} | {row['start_seconds']:.1f} | {row['install_mb']:.0f} | {same} |"
        )
    lines += [f"| {title} | | failed | | | | | | |" for title in report["failed"]]
    return "\n".join(lines)


def marked(page: Path, mark: str) -> tuple[str, str]:
    """The parts of a Markdown page up to `<!-- mark -->` and from `<!-- /mark -->`, marks included."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} has no place marked {begin} {end}")
    return before + begin, end + after


def insert(page: Path, mark: str, text: str) -> None:
    """Replace the text between the two marks in a Markdown page."""
    before, after = marked(page, mark)
    page.write_text(f"{before}\n{text}\n{after}", encoding="utf-8")


def plot(report: Mapping[str, Any]) -> str:
    """A bar chart of median latencies, as SVG."""
    rows = sorted(report["peers"], key=lambda row: row["p50_ms"])
    longest = max(row["p50_ms"] for row in rows)
    height = 30 * len(rows) + 20
    bars = []
    for number, row in enumerate(rows):
        y, width = 10 + 30 * number, 360 * row["p50_ms"] / longest
        colour = "#1f6feb" if row["peer"].startswith("qa_onnx") else "#8c959f"
        bars.append(
            f'<text x="290" y="{y + 15}" text-anchor="end">{escape(row["title"])}, {row["over"]}</text>'
            f'<rect x="300" y="{y}" width="{width:.1f}" height="20" fill="{colour}"/>'
            f'<text x="{306 + width:.1f}" y="{y + 15}">{row["p50_ms"]:.1f} ms</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {height}" font-family="sans-serif" '
        f'font-size="13"><rect width="740" height="{height}" fill="#fff"/>{"".join(bars)}</svg>\n'
    )
