"""Owns inference over rows on a Ray cluster; knows no file and no journal."""

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

# Block size per actor task: large enough that Ray's overhead per task is small compared to inference.
_BLOCK_BYTES = 64 << 10
_CONNECT_SECONDS = 5.0

Block = dict[str, Any]  # columns by name, a chunk in each row


def answer_on_ray(task: Task, settings: Settings, done: int) -> Iterator[Chunk]:
    """Answer the rows after the first `done`, in order, with one actor per CPU of the cluster.

    A single task reads the input on this process's node, so that no other node needs the file. Each actor
    loads the model once. Ray Data restarts an actor that dies and reassigns its blocks; row numbers are
    checked, so that no row is lost or duplicated.
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
                raise RuntimeError(f"Ray returned row {row['row']} instead of {done}")
            outcomes = read_outcomes(row["outcomes"])
            done += len(outcomes)
            yield Chunk(outcomes, float(row["share"]))
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    """Connect to the cluster at `address`; None: to RAY_ADDRESS, else a running or a new local one."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    try:
        if host and port.isdecimal():  # a quick check first, since Ray retries for minutes
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BadFile(f"There is no Ray cluster at {address} that accepts this run: {reason}.") from error


class _Actor:
    """A worker process of the cluster with the model loaded."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self._answer = ChunkAnswerer(settings, task.parameters)

    def __call__(self, block: Block) -> Block:
        answered = [msgspec.json.encode(self._answer(_unpack(rows))) for rows in block["rows"]]
        return {"row": block["row"], "share": block["share"], "outcomes": answered}


def _read(start: Block, task: Task) -> Iterator[Block]:
    """Chunks of the input's rows, starting at row `done`."""
    done = int(start["done"][0])
    for chunk in split(islice(read_rows(task), done, None)):
        yield {"row": [done], "share": [chunk[-1].share], "rows": [_pack(chunk)]}
        done += len(chunk)


def _pack(rows: list[Row]) -> bytes:
    return msgspec.json.encode([(row.asked, row.id, row.line) for row in rows])


def _unpack(packed: bytes) -> list[Row]:
    """Deserialize rows, without `record`, which only writing needs."""
    return [
        Row(tuple(asked) if isinstance(asked, list) else msgspec.convert(asked, Problem), 0.0, identity, line)
        for asked, identity, line in msgspec.json.decode(packed)
    ]
