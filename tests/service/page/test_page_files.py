"""GET / and the page's files, over HTTP."""

import json
import re
from pathlib import Path

import pytest

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from service.settings import DEFAULT_MODEL
from tests.quality.probe_set import probe_set
from tests.service.conftest import Reply, Service

FOLDER = Path(__file__).resolve().parents[3] / "service/page"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FILES = sorted(file.name for file in FOLDER.iterdir() if file.suffix in {".css", ".js", ".json", ".svg"})


def get(service: Service, path: str, **headers: str) -> Reply:
    return service.ask(None, method="GET", path=path, connection=None, **headers)


@pytest.mark.parametrize(
    "accept", [{}, {"Accept": "*/*"}, {"Accept": "application/json"}, {"Accept": "text/plain"}]
)
def test_load_balancers_and_scripts_get_json(service: Service, accept: dict[str, str]) -> None:
    reply = get(service, "/", **accept)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Vary"] == "Accept"
    assert reply.body["service"] == "qa-onnx"
    for path in ("about", "ready"):
        assert get(service, "/" + reply.body["paths"][path]).status == 200


def test_browsers_get_the_page_with_a_strict_policy(service: Service) -> None:
    reply = get(service, "/", Accept=BROWSER)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["Vary"] == "Accept, Accept-Encoding"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert service.ask(None, method="HEAD", path="/", Accept=BROWSER).status == 200


@pytest.mark.parametrize("name", FILES)
def test_files_are_served_with_etags(service: Service, name: str) -> None:
    reply = get(service, f"/page/{name}")
    assert reply.status == 200
    assert reply.data == (FOLDER / name).read_bytes()
    again = get(service, f"/page/{name}", If_None_Match=reply.headers["ETag"])
    assert (again.status, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["__init__.py", "../app.py", "%2e%2e/app.py", "index.htm", ""])
def test_nothing_else_of_the_folder_is_served(service: Service, name: str) -> None:
    assert get(service, f"/page/{name}").status == 404


def test_the_page_is_small_without_external_or_absolute_urls() -> None:
    texts = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir() if file.is_file()}
    assert sum(len(text.encode()) for text in texts.values()) < 60_000
    for name, text in texts.items():
        assert not re.search(r"(?:src|href|url\(|from|import)\s*=?\s*[\"'(]?(?:https?:)?//", text), name
        assert not re.search(r"""(?:src|href)=["']/""", text), (
            f"{name}: an absolute path, which ignores a path prefix"
        )
        assert len(text.splitlines()) <= 300 or name == "style.css", name
    assert "style=" not in texts["index.html"]
    assert not re.search(r"\son\w+=", texts["index.html"])


def test_the_examples_are_from_the_probe_set_and_one_is_long() -> None:
    examples = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
    known = {(probe.question, probe.context) for probe in probe_set()}
    assert len(examples) == 3
    assert all((example["question"], example["context"]) in known for example in examples)
    answerer = QuestionAnswerer(load_artifact(DEFAULT_MODEL))
    windows = [
        len(answerer.prepare(example["question"], example["context"], Parameters()).windows)
        for example in examples
    ]
    assert max(windows) > 1


def test_token_probabilities_that_the_page_shows(service: Service) -> None:
    item = {"question": "Who wrote it?", "context": "Amelia Hart wrote it in Århus \U0001f9ed in 1902."}
    wanted = {"inputs": item, "parameters": {"token_probabilities": True, "top_k": 2}}
    best, second = service.ask(wanted).body
    tokens = best.pop("tokens")
    assert set(best) == set(second) == {"answer", "start", "end", "score"}
    assert len(tokens["offsets"]) == len(tokens["start"]) == len(tokens["end"])
    assert "".join(item["context"][a:b] for a, b in tokens["offsets"]) == "".join(item["context"].split())
    assert "tokens" in service.ask({"inputs": item, "parameters": {"token_probabilities": True}}).body
    assert "tokens" not in service.ask(item).body
