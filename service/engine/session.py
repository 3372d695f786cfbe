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

# Fusions of ONNX Runtime at load time that produce slower operators (see export/optimize.py). Without them
# the latency of a 6-layer model of width 384 is 12% lower, on 1 core and on 2.
_SLOWER_FUSIONS = [
    "SkipLayerNormFusion",
    "BiasSkipLayerNormFusion",
    "EmbedLayerNormFusion",
    "BiasGeluFusion",
]
_FEEDS = {"input_ids", "attention_mask", "token_type_ids"}

_log = logging.getLogger(__name__)


class Session:
    """A loaded model: a wide and a narrow ONNX Runtime session. `run` is thread-safe.

    The wide session uses all threads for one run, for the lowest latency. The narrow one is
    single-threaded: as many parallel runs as there are cores have the highest throughput, since no core
    synchronizes with another (2 cores: 254 instead of 240 answers/s; 213 instead of 150 with Python code
    running beside them). Both map the same weights file. Each session of the portable graph has its own
    prepacked weights; the custom operator shares them.
    """

    def __init__(
        self, artifact: Artifact, *, threads: int, token_budget: int, concurrent: bool, kernel: bool = True
    ) -> None:
        """Load a graph with `threads` threads and batches of at most `token_budget` tokens.

        `kernel` allows the graph with the custom operator, if this machine supports it; the attribute
        `graph` has the one that was loaded.

        An int8 graph runs one window per batch: dynamic quantization uses one scale for a whole batch, so
        an answer would depend on the other windows. This is free from 128 tokens on and costs up to 20% of
        the throughput below. A single window is never padded, so such a graph needs no attention mask.

        `concurrent` loads the narrow session as well. Raises ArtifactError if ONNX Runtime rejects the
        portable graph, or if the graph has inputs that no tokenizer provides.
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
            raise ArtifactError(
                f"{self.graph.path} has inputs that no tokenizer provides: {sorted(unknown)}."
            )
        self._outputs = [artifact.start_output, artifact.end_output]
        if missing := set(self._outputs) - {node.name for node in self._wide.get_outputs()}:
            raise ArtifactError(f"{self.graph.path} has no outputs named {sorted(missing)}.")
        self._pad_id = artifact.pad_id
        padded = artifact.precision == "fp32" and "attention_mask" in self._inputs
        self._token_budget = token_budget if padded else 1

    def run(self, windows: Sequence[Window], *, narrow: bool = False) -> list[WindowLogits]:
        """Logits of every window, in order.

        Parallel wide runs are correct but compete for the cores; `narrow` ones do not.
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
    import onnxruntime as ort  # lazily: the import is slow, and a worker answers health checks before it

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal only: errors are raised below
    # Threads spin-wait during a run, where the next operator follows within microseconds, and block between
    # runs: an idle service must not use CPU time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Dynamic block sizes for intra-op parallelism: 2% lower latency from 256 tokens on if both CPUs are
    # hyper-threads of one core, no difference on separate cores.
    options.add_session_config_entry("session.dynamic_block_base", "2")
    # Memory patterns are cached per input shape, and every length is a new one: the cache would only grow.
    options.enable_mem_pattern = False
    # The arena never shrinks below its peak; with the settings of memory.py malloc is as fast.
    options.enable_cpu_mem_arena = False
    try:
        if graph.name == KERNEL:
            # The custom operator API does not expose the session's thread count.
            options.add_session_config_entry("qa_onnx.threads", str(threads))
            options.register_custom_ops_library(str(LIBRARY))
        return ort.InferenceSession(
            str(graph.path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_SLOWER_FUSIONS,
        )
    except Exception as error:  # the exceptions of the C++ library derive from Exception only
        reason = " ".join(str(error).split()).rstrip(".")  # in one line
        raise ArtifactError(f"ONNX Runtime {ort.__version__} cannot load {graph.path}: {reason}.") from error
