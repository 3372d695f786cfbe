"""Owns the way from rows to outcomes on a Ray cluster; knows no file and no journal."""

import logging
import socket
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from service.bulk.answer import ChunkAnswerer, split
from service.bulk.formats import read_rows
from service.bulk.rows import Chunk, Problem, Row, read_outcomes
from service.bulk.task import BadFile, Task
from service.settings import Settings

try:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
except ImportError as missing:
    raise BadFile("The engine ray needs Ray: install it with 'pip install qa-onnx[ray]'.") from missing

# What one actor takes at a time: many, so that Ray's work per task is small beside the model's.
_BLOCK_BYTES = 64 << 10
_CONNECT_SECONDS = 5.0

Block = dict[str, Any]  # columns by name, a chunk in each row


def answer_on_ray(task: Task, settings: Settings, done: int) -> Iterator[Chunk]:
    """Answer the rows after the first `done`, in order, by one actor per CPU of the cluster.

    One task reads the input, on the machine that this process is on, so that no other needs the file; an
    actor loads the model once. An actor that dies is started anew and what it had is given to another: Ray
    Data does that, and that no row is lost or doubled is checked.
    """
    _connect(task.address)
    try:
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.target_max_block_size = _BLOCK_BYTES
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        cpus = int(ray.cluster_resources().get("CPU", 0))
        chunks = (
            ray.data.from_items([{"done": done}], override_num_blocks=1)
            .map_batches(_read, fn_kwargs={"task": task}, batch_size=None, num_cpus=0, label_selector=here)
            .map_batches(
                _Actor,
                fn_constructor_kwargs={"task": task, "settings": settings},
                batch_size=None,
                num_cpus=1,
                compute=ActorPoolStrategy(size=max(cpus, 1)),
            )
        )
        for row in chunks.iter_rows():
            if row["row"] != done:
                raise RuntimeError(f"Ray gave row {row['row']} where {done} comes next")
            outcomes = read_outcomes(row["outcomes"])
            done += len(outcomes)
            yield Chunk(outcomes, float(row["share"]))
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    """Join the cluster at `address`, or what Ray finds without one: RAY_ADDRESS, a local one, a new one."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    try:
        if host and port.isdecimal():  # asked first, since Ray would try for minutes
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BadFile(f"There is no Ray cluster at {address} that takes this run: {reason}.") from error


class _Actor:
    """The model, loaded once in a process of the cluster."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self._answer = ChunkAnswerer(settings, task.parameters)

    def __call__(self, block: Block) -> Block:
        answered = [msgspec.json.encode(self._answer(_unpack(rows))) for rows in block["rows"]]
        return {"row": block["row"], "share": block["share"], "outcomes": answered}


def _read(start: Block, task: Task) -> Iterator[Block]:
    """The input's rows in chunks, from row `done` on."""
    done = int(start["done"][0])
    for chunk in split(islice(read_rows(task), done, None)):
        yield {"row": [done], "share": [chunk[-1].share], "rows": [_pack(chunk)]}
        done += len(chunk)


def _pack(rows: list[Row]) -> bytes:
    return msgspec.json.encode([(row.asked, row.id, row.line) for row in rows])


def _unpack(packed: bytes) -> list[Row]:
    """Rows again, without what only their writing needs."""
    return [
        Row(tuple(asked) if isinstance(asked, list) else msgspec.convert(asked, Problem), 0.0, identity, line)
        for asked, identity, line in msgspec.json.decode(packed)
    ]
