"""A reverse proxy in front of the service, with a path prefix and an API key."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.service.conftest import Service

PREFIX = "/team/qa"
KEY = "s3cret"
_UNAUTHORIZED = (
    b'{"error":{"code":"unauthorized","message":"Send your API key as a Bearer token.","field":null}}'
)


@contextmanager
def behind_proxy(service: Service) -> Iterator[str]:
    """The page's URL behind a proxy that strips PREFIX and requires KEY for predict and info."""

    class ReverseProxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._forward(None)

        def do_POST(self) -> None:
            self._forward(self.rfile.read(int(self.headers["Content-Length"])))

        def _forward(self, body: bytes | None) -> None:
            path = self.path.removeprefix(PREFIX)
            guarded = path in ("/predict", "/info")
            if path == self.path:
                self._reply(404, [("Content-Type", "text/plain")], b"outside the prefix")
            elif guarded and self.headers["Authorization"] != f"Bearer {KEY}":
                self._reply(401, [("Content-Type", "application/json")], _UNAUTHORIZED)
            else:
                connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
                headers = {
                    name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers
                }
                connection.request(self.command, path, body, headers)
                reply = connection.getresponse()
                kept = [
                    item for item in reply.getheaders() if item[0] not in ("Connection", "Content-Length")
                ]
                self._reply(reply.status, kept, reply.read())
                connection.close()

        def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), ReverseProxy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
