"""This project's service, asked over HTTP."""

import sys

from benchmarks.worker import Answerer, Setup, http_answerer

TITLE = "qa-onnx service, int8"
OVER = "HTTP"
REQUIREMENTS: list[str] = []  # deploy/install.sh runtime


def start(setup: Setup) -> Answerer:
    command = [
        *(sys.executable, "-m", "service", "serve", "--model", setup.artifact),
        *("--port", str(setup.port), "--threads", str(setup.threads)),
    ]
    return http_answerer(setup.start_server(command), setup.port, "/predict")
