"""Prometheus metrics, aggregated over the workers, and the Grafana dashboard that shows them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard
from prometheus_client.parser import text_string_to_metric_families

from service import __version__
from tests.service.conftest import MODEL, ROOT, Service, Start
from tests.service.test_predict import ITEM

DASHBOARD = ROOT / "deploy/grafana/qa-onnx.json"
GRID_COLUMNS = 24
# Functions and keywords of PromQL in the dashboard's expressions.
FUNCTIONS = {"sum", "by", "rate", "increase", "histogram_quantile", "le"}


@pytest.fixture(scope="module")
def counted(start: Start) -> Service:
    """Two workers that have answered and rejected some requests."""
    service = start(QA_WORKERS="2", QA_MAX_BODY_BYTES="20000")
    for _ in range(6):  # on separate connections, so that both workers get some
        assert service.ask({"inputs": [ITEM] * 3}).status == 200
    assert service.ask({"question": ""}).status == 422
    assert service.ask(b"{").status == 400
    assert service.ask(b" " * 20_001).status == 413
    assert service.get("/nothing").status == 404
    assert service.ask(None, method="BREW", path="/nothing").status == 404
    assert service.get(f"/v2/models/{MODEL.name}").status == 200
    return service


def test_requests_by_route_and_status(counted: Service) -> None:
    metrics = counted.metrics()

    def requests(method: str, route: str, status: int) -> float:
        labels = f'method="{method}",route="{route}",status="{status}"'
        return metrics[f"qa_http_requests_total{{{labels}}}"]

    assert requests("POST", "/predict", 200) == 6
    assert [requests("POST", "/predict", status) for status in (400, 413, 422)] == [1, 1, 1]
    assert requests("GET", "/v2/models/<model>", 200) == 1  # the pattern, not the requested path
    assert requests("GET", "other", 404) == 1
    assert requests("other", "other", 404) == 1
    assert requests("GET", "/health/ready", 200) >= 1
    assert "nothing" not in str(metrics)
    assert "BREW" not in str(metrics)


def test_rejections_by_reason(counted: Service) -> None:
    metrics = counted.metrics()
    reasons = {"invalid_input": 1, "invalid_json": 1, "too_large": 1, "not_found": 2}
    for reason, times in reasons.items():
        assert metrics[f'qa_refusals_total{{reason="{reason}"}}'] == times


def test_sizes_of_requests_and_batches(counted: Service) -> None:
    metrics = counted.metrics()
    assert (metrics["qa_request_questions_count"], metrics["qa_request_questions_sum"]) == (6, 18)
    assert metrics['qa_request_questions_bucket{le="2.0"}'] == 0
    assert metrics['qa_request_questions_bucket{le="4.0"}'] == 6
    assert metrics["qa_batch_windows_sum"] == 18  # a short text is one window
    assert 6 <= metrics["qa_batch_windows_count"] <= 18


def test_model_info_has_one_sample(counted: Service) -> None:
    found = {name: value for name, value in counted.metrics().items() if name.startswith("qa_model_info{")}
    ((labels, value),) = found.items()
    assert value == 1
    for pair in (f'model="{MODEL.name}"', 'precision="int8"', f'version="{__version__}"'):
        assert pair in labels


def test_memory_is_that_of_all_processes(counted: Service) -> None:
    metrics = counted.metrics()
    server, workers = (metrics[f'qa_memory_bytes{{process="{kind}"}}'] for kind in ("server", "worker"))
    assert 1 << 20 < server < 1 << 30
    assert 1 << 24 < workers < 1 << 31


def test_histogram_buckets_range_from_a_millisecond_to_the_deadline(counted: Service) -> None:
    text = counted.get("/metrics").data.decode()
    for name in ("qa_request_seconds", "qa_stage_seconds"):
        found = {float(bound) for bound in re.findall(rf'^{name}_bucket{{le="([\d.]+)"', text, re.MULTILINE)}
        bounds = sorted(found)
        assert (bounds[0], bounds[-1]) == (0.001, 30.0)
        assert all(high / low <= 3 for low, high in pairwise(bounds))


def test_the_exposition_format_is_valid(counted: Service) -> None:
    families = list(text_string_to_metric_families(counted.get("/metrics").data.decode()))
    samples = Counter(
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in families
        for sample in family.samples
    )
    assert max(samples.values()) == 1
    assert all(family.documentation for family in families)


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[str]:
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def test_the_dashboard_uses_existing_metrics(counted: Service) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(counted.get("/metrics").data.decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, {"job"}).update(sample.labels)
    for expression in expressions():
        names = set(re.findall(r"\bqa_\w+", expression))
        assert names
        assert names <= labels.keys(), expression
        known = set[str]().union(*(labels[name] for name in names))
        selected = re.findall(r"(\w+)=~?\"", expression)
        grouped = [
            name.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for name in group.split(",")
        ]
        assert {*selected, *grouped} <= known, expression
        words = set(re.findall(r"(?<![\w$\"])[a-z_]+(?![\w\"])", re.sub(r'"[^"]*"', "", expression)))
        assert words <= FUNCTIONS | known | names, expression
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), expression


def test_every_metric_is_on_the_dashboard(counted: Service) -> None:
    shown = " ".join(expressions())
    for family in text_string_to_metric_families(counted.get("/metrics").data.decode()):
        assert family.name in shown, family.name


def test_the_dashboard_round_trips_through_grafanas_types() -> None:
    """The types of Grafana's SDK ignore unknown fields."""
    register_default_plugins()  # the types of panels and queries
    read = dashboard.Dashboard.from_json(json.loads(DASHBOARD.read_text()))
    written = json.loads(JSONEncoder().encode(read))
    assert list(unknown(json.loads(DASHBOARD.read_text()), written)) == []
    broken = json.loads(DASHBOARD.read_text())
    broken["panels"][0]["fieldConfig"]["defaults"]["unitt"] = "s"
    written = json.loads(JSONEncoder().encode(dashboard.Dashboard.from_json(broken)))
    assert list(unknown(broken, written)) == [".panels.0.fieldConfig.defaults.unitt"]


def unknown(ours: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Paths in `ours` whose values are not in `kept`."""
    if isinstance(ours, dict) and isinstance(kept, dict):
        for name, value in ours.items():
            yield from unknown(value, kept[name], f"{path}.{name}") if name in kept else [f"{path}.{name}"]
    elif isinstance(ours, list) and isinstance(kept, list) and len(ours) == len(kept):
        for index, pair in enumerate(zip(ours, kept, strict=True)):
            yield from unknown(*pair, f"{path}.{index}")
    elif ours != kept:
        yield path


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert board.keys() >= {"title", "uid", "schemaVersion", "templating", "time", "panels"}
    assert "id" not in board  # an id is specific to one installation
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "job"}
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel.keys() >= {"id", "type", "title", "description", "gridPos", "targets", "fieldConfig"}
        assert panel["type"] in {"stat", "timeseries", "heatmap", "table"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())
