"""Owns the command line of the service; knows only which module runs each command."""

import argparse
import http.client
import json
import logging
import logging.config
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_type_hints

from service import __version__, address
from service.bench.arguments import add_arguments as add_bench
from service.bulk.arguments import add_arguments as add_bulk
from service.errors import NotReady, QAError, SettingsError
from service.json_log import logging_config
from service.runfolder import running
from service.settings import Settings, clear_environment

# The engine and the web server are imported by the commands that need them: `health` runs every
# few seconds in a container and must not load ONNX Runtime each time.

# A question that any trained model answers correctly; an untrained one must answer something.
_PROBE = ("Who wrote the letter?", "The letter was written by Amelia Hart in the spring of 1902.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit status 0, or 2 with one sentence for errors that the user can fix."""
    options = _parser().parse_args(arguments)
    flags = {f.name: getattr(options, f.name, None) for f in fields(Settings)}
    try:
        settings = Settings.from_env(flags)
        _start_log(settings)
        status: int = options.run(settings, options)
    except QAError as error:
        print(f"qa-onnx: {error.message}", file=sys.stderr)
        return 2
    return status


def _start_log(settings: Settings) -> None:
    if settings.log_format == "json":
        logging.config.dictConfig(logging_config(settings.log_level))
    else:
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    # Until gunicorn sets its own: the first process of a container gets no signal without a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    _open_standard_streams()
    clear_environment()
    from service.engine.artifact import load_artifact
    from service.gunicorn_conf import Server
    from service.telemetry import check_installed

    check_installed(settings.otlp_endpoint)
    try:
        environment = Settings.from_env()
        asked = address.describe(environment.host, environment.port)
    except SettingsError:  # valid only together with a flag
        asked = ""
    Server(settings, load_artifact(settings.model, verify=False), asked).run()
    return 0


def _open_standard_streams() -> None:
    """Have descriptors 0 to 2 taken, as they are not when a supervisor closed them.

    Otherwise a connection would get one of these numbers, and with it what libraries write to stderr.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _health(settings: Settings, options: argparse.Namespace) -> int:
    asked = address.describe(settings.host, settings.port)
    where = asked
    if options.host is None and options.port is None:
        # The flags of `serve` and the port chosen for 0 are not known here: running services publish both.
        alike = [service.listening for service in running() if service.asked == asked]
        where = alike[0] if alike and asked not in alike else asked
    try:
        connection = address.connect(where, timeout=2)
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"Nothing answers at {where} ({error}).") from error
    if status != http.client.OK:
        raise NotReady(f"The service at {where} is not ready (status {status}).")
    return 0


def _answer(settings: Settings, options: argparse.Namespace) -> int:
    from service.engine.answering import QuestionAnswerer
    from service.engine.artifact import load_artifact
    from service.engine.parameters import Parameters

    context = _read_context(options.context_file)
    parameters = Parameters(top_k=options.top_k, handle_impossible_answer=options.handle_impossible_answer)
    answerer = QuestionAnswerer.with_settings(load_artifact(settings.model), settings)
    (answers,) = answerer.answer([(options.question, context)], parameters)
    if options.json:
        found = [asdict(answer) for answer in answers]
        print(json.dumps(found[0] if options.top_k == 1 else found, ensure_ascii=False))
        return 0
    for answer in answers:
        place = f"characters {answer.start} to {answer.end}" if answer.answer else "no answer"
        print(f"{answer.answer}\t({place}, score {answer.score:.4f})")
    return 0


def _check(settings: Settings, options: argparse.Namespace) -> int:
    from service.engine.answering import QuestionAnswerer
    from service.engine.artifact import load_artifact

    artifact = load_artifact(options.artifact or settings.model)
    answerer = QuestionAnswerer.with_settings(artifact, settings)
    ((answer,),) = answerer.answer([_PROBE])
    source = artifact.manifest["source"]["id"]
    print(f"{artifact.path}: {source}, {artifact.precision} for {artifact.target}; files intact")
    print(f"graph: {answerer.graph.name} {answerer.graph.reason}".rstrip())
    print(f"{_PROBE[0]} -> {answer.answer} (score {answer.score:.4f})")
    return 0


def _bench(settings: Settings, options: argparse.Namespace) -> int:
    from service.bench.run import bench

    return bench(settings, options)


def _bulk(settings: Settings, options: argparse.Namespace) -> int:
    from service.bulk.run import bulk

    return bulk(settings, options)


def _soak(settings: Settings, options: argparse.Namespace) -> int:
    from service.bench.soak import soak

    return soak(settings, options)


def _read_context(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8")  # decoded by hand: text mode would turn CRLF into LF
    except OSError as error:
        raise QAError(f"The context file {name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise QAError(f"The context file {name} is not UTF-8 text.") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qa-onnx" if Path(sys.argv[0]).name == "qa-onnx" else "python -m service",
        description="Extractive question answering on CPUs. Flags that list a QA_ variable can also be "
        "set in the environment; the flag takes precedence.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve answers over HTTP")
    _add_settings(serve, {f.name for f in fields(Settings)})
    serve.set_defaults(run=_serve)

    health = commands.add_parser("health", help="check whether a running service is ready")
    _add_settings(health, {"host", "port"})
    health.set_defaults(run=_health)

    answer = commands.add_parser("answer", help="answer one question on the command line")
    answer.add_argument("--question", required=True)
    answer.add_argument("--context-file", required=True, metavar="F", help="a file, or - for stdin")
    answer.add_argument("--top-k", type=int, default=1, metavar="N", help="number of answers (default 1)")
    answer.add_argument("--handle-impossible-answer", action="store_true", help="allow 'no answer'")
    answer.add_argument("--json", action="store_true", help="print JSON")
    _add_settings(answer, {"model", "threads", "kernel", "token_budget"})
    answer.set_defaults(run=_answer)

    check = commands.add_parser("check", help="verify a model folder and answer a test question")
    check.add_argument("artifact", nargs="?", type=Path, metavar="ARTIFACT")
    _add_settings(check, {"model", "threads", "kernel"})
    check.set_defaults(run=_check)

    soak = commands.add_parser("soak", help="load a server for a long time and verify every reply")
    soak.add_argument("--minutes", type=float, default=30.0, metavar="M", help="duration (default 30)")
    soak.add_argument(
        "--requests",
        type=int,
        default=0,
        metavar="N",
        help="number of requests, instead of a duration",
    )
    soak.add_argument(
        "--growth",
        type=float,
        default=0.02,
        metavar="X",
        help="allowed relative growth of memory after warm-up (default 0.02; a short run needs more)",
    )
    _add_settings(soak, {"model", "kernel"})
    soak.set_defaults(run=_soak)

    bench = commands.add_parser("bench", help="measure latency and throughput on this machine")
    add_bench(bench)
    _add_settings(bench, {"model", "threads", "kernel", "token_budget"})
    bench.set_defaults(run=_bench)

    bulk = commands.add_parser("bulk", help="answer the rows of a file")
    add_bulk(bulk)
    _add_settings(bulk, {"model", "threads", "kernel", "token_budget"})
    bulk.set_defaults(run=_bulk)
    return parser


def _add_settings(parser: argparse.ArgumentParser, names: set[str]) -> None:
    """One flag per setting, None unless given, so that Settings decides on precedence."""
    types = get_type_hints(Settings)
    for setting in fields(Settings):
        if setting.name not in names:
            continue
        flag = "--" + setting.name.replace("_", "-")
        text = f"{setting.metadata['help']} (QA_{setting.name.upper()}, default {setting.default})"
        if types[setting.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            # Kept as text: Settings reads flags and environment alike, with one error message.
            parser.add_argument(flag, metavar=setting.name.upper(), help=text)


if __name__ == "__main__":
    sys.exit(main())
