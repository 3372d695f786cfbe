"""This project's service, asked over HTTP."""

import subprocess
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
    server = setup.keep(subprocess.Popen(command, stdout=sys.stderr))  # noqa: S603 - this project
    return http_answerer(server, setup.port, "/predict")
