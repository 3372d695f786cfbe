"""Owns the command line of the service; knows only which module runs each command."""

import argparse
import http.client
import json
import logging
import logging.config
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_type_hints

from service import __version__, address
from service.bench.arguments import add_arguments as add_bench
from service.bulk.arguments import add_arguments as add_bulk
from service.errors import NotReady, QAError, SettingsError
from service.json_log import logging_config
from service.runfolder import running
from service.settings import DEFAULT_MODEL, Settings, clear_environment

_Run = Callable[[Settings, argparse.Namespace], int]

# The engine and the web server are imported by the commands that need them: `health` runs every
# few seconds in a container and must not load ONNX Runtime each time.

_BROKEN_PIPE, _INTERRUPTED = 141, 130  # exit statuses of shells: 128 and the number of SIGPIPE, SIGINT

# A question that any trained model answers correctly; an untrained one must answer something.
_PROBE = ("Who wrote the letter?", "The letter was written by Amelia Hart in the spring of 1902.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit status 0, or 2 with one sentence for errors that the user can fix.

    A closed stdout (`qa-onnx answer ... | head`) and Ctrl-C end it silently, with the statuses of shells.
    """
    options = _parser().parse_args(arguments)
    flags = {f.name: getattr(options, f.name, None) for f in fields(Settings)}
    try:
        settings = Settings.from_env(flags)
        _start_log(settings)
        status: int = options.run(settings, options)
        sys.stdout.flush()
    except QAError as error:
        print(f"qa-onnx: {error.message}", file=sys.stderr)
        # Docker reserves 2 for itself: a health check exits with 1 (docs.docker.com, HEALTHCHECK).
        return 1 if isinstance(error, NotReady) else 2
    except BrokenPipeError:
        # stdout is flushed once more at exit, see docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
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
        epilog="'%(prog)s COMMAND --help' lists a command's flags, with an example.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: _Run, text: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: %(prog)s {example}",
        )
        added.set_defaults(run=run)
        return added

    serve = command("serve", _serve, "serve answers over HTTP", "--port 8080 --model models/mine")
    serve.usage = "%(prog)s [FLAG ...]"
    _add_settings(serve, {f.name for f in fields(Settings)})

    health = command("health", _health, "check whether a running service is ready", "--port 8080")
    _add_settings(health, {"host", "port"})

    answer = command(
        "answer",
        _answer,
        "answer one question on the command line",
        '--question "Who?" --context-file letter.txt',
    )
    answer.add_argument("--question", required=True, help="the question")
    answer.add_argument("--context-file", required=True, metavar="F", help="a UTF-8 file, or - for stdin")
    answer.add_argument("--top-k", type=int, default=1, metavar="N", help="number of answers (default 1)")
    answer.add_argument("--handle-impossible-answer", action="store_true", help="allow 'no answer'")
    answer.add_argument("--json", action="store_true", help="print JSON")
    _add_settings(answer, {"model", "threads", "kernel", "token_budget"})

    check = command("check", _check, "verify a model folder and answer a test question", "models/mine")
    check.add_argument(
        "artifact", nargs="?", type=Path, metavar="ARTIFACT", help="model folder (default: that of --model)"
    )
    _add_settings(check, {"model", "threads", "kernel"})

    soak = command("soak", _soak, "load a server for a long time and verify every reply", "--minutes 60")
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

    bench = command(
        "bench", _bench, "measure latency and throughput on this machine", "--mode http --concurrency 1,8"
    )
    bench.usage = "%(prog)s [FLAG ...]"
    add_bench(bench)
    _add_settings(bench, {"model", "threads", "kernel", "token_budget"})

    bulk = command("bulk", _bulk, "answer the rows of a file", "--input questions.csv --output answers.csv")
    bulk.usage = "%(prog)s --input FILE --output FILE [FLAG ...]"
    add_bulk(bulk)
    _add_settings(bulk, {"model", "threads", "kernel", "token_budget"})
    return parser


def _add_settings(parser: argparse.ArgumentParser, names: set[str]) -> None:
    """One flag per setting, None unless given, so that Settings decides on precedence."""
    types = get_type_hints(Settings)
    for setting in fields(Settings):
        if setting.name not in names:
            continue
        flag = "--" + setting.name.replace("_", "-")
        default = "the built-in model" if setting.default is DEFAULT_MODEL else setting.default
        told = f", default {default}" if default != "" else ""
        text = f"{setting.metadata['help']} (QA_{setting.name.upper()}{told})"
        if types[setting.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            # Kept as text: Settings reads flags and environment alike, with one error message.
            parser.add_argument(flag, metavar=setting.name.upper(), help=text)


if __name__ == "__main__":
    sys.exit(main())
