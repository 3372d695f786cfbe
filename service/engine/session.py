"""Owns the ONNX Runtime sessions of one model: batches of windows in, logits out; knows no text."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from service.engine.artifact import Artifact
from service.engine.kernel import KERNEL, LIBRARY, Graph, choose_graph, portable_graph
from service.engine.memory import return_memory
from service.engine.windowing import Batch, Logits, Window, WindowLogits, batch_windows
from service.errors import ArtifactError

if TYPE_CHECKING:
    import onnxruntime as ort

# What ONNX Runtime would fuse at load although the fused operators are slower (see export/optimize.py):
# a 6-layer model of width 384 answered 12% sooner without them, on 1 core and on 2.
_SLOWER_FUSIONS = [
    "SkipLayerNormFusion",
    "BiasSkipLayerNormFusion",
    "EmbedLayerNormFusion",
    "BiasGeluFusion",
]
_FEEDS = {"input_ids", "attention_mask", "token_type_ids"}

_log = logging.getLogger(__name__)


class Session:
    """One loaded model, in two shapes. Any thread may call `run`; see there for how many at once.

    The wide shape gives all threads to one run, for the least latency. The narrow one runs in the
    caller's thread alone: as many of those side by side as there are cores give the most answers,
    since no core waits for another (2 cores: 254 against 240 answers per second, and 213 against 150
    when Python works beside them). Both map the same file of weights; what the portable graph unpacks
    of it is each shape's own, what the custom operator packs is shared.
    """

    def __init__(
        self, artifact: Artifact, *, threads: int, token_budget: int, concurrent: bool, kernel: bool = True
    ) -> None:
        """Load a graph to run on `threads` cores, at most `token_budget` tokens at a time.

        `kernel` lets the graph with the custom operator be taken where this machine runs it. `graph` tells
        which was loaded.

        An int8 graph takes one window at a time: dynamic quantization scales a whole batch by its
        largest activation, so an answer would depend on what happened to run beside it. From 128
        tokens on that costs nothing; below it costs up to a fifth of the throughput. Alone a window
        is never padded, so such a graph may do without an attention mask.

        `concurrent` loads the narrow shape too. Raises ArtifactError where ONNX Runtime refuses the
        portable graph or the graph asks for inputs that no tokenizer gives.
        """
        self.graph = choose_graph(artifact, enabled=kernel)
        try:
            self._wide = _load(self.graph, threads)
        except ArtifactError as error:
            if self.graph.name != KERNEL:
                raise
            self.graph = portable_graph(artifact, error.message)
            _log.warning("The portable graph runs the model: %s", error.message)
            self._wide = _load(self.graph, threads)
        self._narrow = _load(self.graph, 1) if concurrent and threads > 1 else self._wide
        return_memory()
        self._inputs = {node.name for node in self._wide.get_inputs()}
        if unknown := self._inputs - _FEEDS:
            raise ArtifactError(f"{self.graph.path} wants inputs nobody can give it: {sorted(unknown)}.")
        self._outputs = [artifact.start_output, artifact.end_output]
        if missing := set(self._outputs) - {node.name for node in self._wide.get_outputs()}:
            raise ArtifactError(f"{self.graph.path} has no outputs named {sorted(missing)}.")
        self._pad_id = artifact.pad_id
        padded = artifact.precision == "fp32" and "attention_mask" in self._inputs
        self._token_budget = token_budget if padded else 1

    def run(self, windows: Sequence[Window], *, narrow: bool = False) -> list[WindowLogits]:
        """Logits of every window, in the order given.

        Wide runs side by side are right but slow each other down; `narrow` ones do not.
        """
        session = self._narrow if narrow else self._wide
        logits: list[WindowLogits | None] = [None] * len(windows)
        for batch in batch_windows(windows, self._token_budget, self._pad_id):
            start, end = self._run_batch(session, batch)  # (windows, padded tokens) each
            for row, index in enumerate(batch.order):
                tokens = len(windows[index].ids)
                logits[index] = WindowLogits(start[row, :tokens], end[row, :tokens])
        return [found for found in logits if found is not None]

    def _run_batch(self, session: "ort.InferenceSession", batch: Batch) -> tuple[Logits, Logits]:
        feeds = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "token_type_ids": batch.types,
        }
        start, end = session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        return np.asarray(start, dtype=np.float32), np.asarray(end, dtype=np.float32)


def _load(graph: Graph, threads: int) -> "ort.InferenceSession":
    import onnxruntime as ort  # takes long, and a worker answers health checks meanwhile

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal errors only: what fails is raised here in one sentence
    # Threads spin inside a run, where the next operator is microseconds away, and sleep between
    # runs: an idle service must not burn a core of a small VM.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Shares of an operator get smaller towards its end. Where two CPUs are threads of one core, 2% sooner
    # from 256 tokens on; on cores of their own no difference.
    options.add_session_config_entry("session.dynamic_block_base", "2")
    # Every length is a new shape: patterns kept per shape would only grow.
    options.enable_mem_pattern = False
    # It keeps the largest memory ever asked for; the C library's allocator is as fast (memory.py).
    options.enable_cpu_mem_arena = False
    try:
        if graph.name == KERNEL:
            # The interface for operators does not tell the session's number of threads.
            options.add_session_config_entry("qa_onnx.threads", str(threads))
            options.register_custom_ops_library(str(LIBRARY))
        return ort.InferenceSession(
            str(graph.path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_SLOWER_FUSIONS,
        )
    except Exception as error:  # the C++ side raises its own family, rooted in Exception
        reason = " ".join(str(error).split()).rstrip(".")  # in one line
        raise ArtifactError(f"ONNX Runtime {ort.__version__} cannot load {graph.path}: {reason}.") from error
