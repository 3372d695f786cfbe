"""This project's engine, called as a library."""

from pathlib import Path

from benchmarks.worker import Answerer, Setup

TITLE = "qa-onnx engine, int8"
OVER = "in process"
REQUIREMENTS: list[str] = []  # deploy/install.sh runtime


def start(setup: Setup) -> Answerer:
    from service.engine.answering import QuestionAnswerer
    from service.engine.artifact import load_artifact

    answerer = QuestionAnswerer(load_artifact(Path(setup.artifact)), threads=setup.threads)
    return lambda question, context: answerer.answer([(question, context)])[0][0].answer
