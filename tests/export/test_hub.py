"""Downloads from a fake hub on loopback: revision, token, cache, errors."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.export.conftest import TINY, Export

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "acme/tiny-qa"


@dataclass
class Hub:
    """The part of the hub's HTTP interface that a download uses."""

    address: str
    home: Path
    authorizations: set[str | None] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)

    def environment(self, **changes: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return (
            own
            | {
                "HF_ENDPOINT": self.address,
                "HF_HOME": str(self.home),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "no_proxy": "*",
            }
            | changes
        )


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            found.authorizations.add(self.headers.get("Authorization"))
            found.paths.append(self.path)
            if self.path.split("?")[0] in {
                f"/api/models/{MODEL}/revision/{name}" for name in ("main", "v1", COMMIT)
            }:
                files = [{"rfilename": file.name} for file in TINY.iterdir()]
                self.reply(200, json.dumps({"id": MODEL, "sha": COMMIT, "siblings": files}).encode())
            elif self.path.startswith(f"/{MODEL}/resolve/{COMMIT}/"):
                data = (TINY / self.path.rsplit("/", 1)[1]).read_bytes()
                self.reply(200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"')
            elif self.path.startswith(f"/api/models/{MODEL}/revision/"):
                self.reply(404, b"", X_Error_Code="RevisionNotFound")
            elif self.path.startswith("/api/models/acme/gated"):
                self.reply(403, b"", X_Error_Code="GatedRepo")
            else:
                self.reply(404, b"", X_Error_Code="RepoNotFound")

        def reply(self, status: int, data: bytes, **headers: str) -> None:
            self.send_response(status)
            sent = {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT} | {
                name.replace("_", "-"): value for name, value in headers.items()
            }
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """No log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Hub(f"http://127.0.0.1:{server.server_port}", tmp_path / "home")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def test_a_hub_model_is_pinned_to_its_commit(hub: Hub, tmp_path: Path, export: Export) -> None:
    flags = ("--model", MODEL, "--revision", "v1", "--precision", "fp32")
    done = export(*flags, "--output", tmp_path / "one", env=hub.environment(HF_TOKEN="hf_secret"))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "one/manifest.json").read_text())
    assert manifest["source"] == {"id": MODEL, "commit": COMMIT}
    assert hub.authorizations == {"Bearer hf_secret"}
    assert "hf_secret" not in done.stderr
    assert "hf_secret" not in json.dumps(manifest)
    assert not any(path.endswith(".py") for path in hub.paths)
    # Offline, the cache suffices and gives the same result.
    hub.paths.clear()
    done = export(*flags, "--output", tmp_path / "two", env=hub.environment(HF_HUB_OFFLINE="1"))
    assert done.returncode == 0, done.stderr
    assert hub.paths == []
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert json.loads((tmp_path / "two/manifest.json").read_text())["source"]["commit"] == COMMIT


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model", "acme/misspelt"), "no model acme/misspelt"),
        (("--model", "acme/gated"), "gated"),
        (("--model", MODEL, "--revision", "v9"), "v9"),
        (("--model", "no such/folder/at all"), "neither a folder"),
    ],
)
def test_errors_of_the_hub_are_reported(
    flags: tuple[str, ...], words: str, hub: Hub, tmp_path: Path, export: Export
) -> None:
    done = export(*flags, "--output", tmp_path / "out", env=hub.environment())
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unreachable_hub_is_reported(hub: Hub, tmp_path: Path, export: Export) -> None:
    env = hub.environment(HF_ENDPOINT="http://127.0.0.1:9")
    done = export("--model", MODEL, "--output", tmp_path / "out", env=env)
    assert done.returncode == 2
    assert "out of reach" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
