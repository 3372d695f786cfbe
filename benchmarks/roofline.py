"""Owns the roofline: this CPU's measured int8 GEMM peak, and the fraction of it that the model reaches.

`python -m benchmarks.roofline --artifact ARTIFACT` times ONNX Runtime's int8 matrix product at several
shapes, takes the fastest as the peak, and compares it with the operations per second of the model's products.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.cpu import available_cpus, cpu_model
from service.engine.kernel import KERNEL
from service.engine.windowing import Window

# (rows, inner, columns): the model's shapes at 384 tokens, and larger ones, for the peak.
_SHAPES = ((384, 384, 384), (384, 384, 1536), (384, 1536, 384), (1024, 1024, 1024), (2048, 2048, 2048))


def gemm_rate(rows: int, inner: int, columns: int, threads: int) -> float:
    """Operations per second of a u8 x s8 product (a multiply-add counts as two)."""
    random = np.random.default_rng(0)
    weights = random.integers(-64, 64, (inner, columns), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "gemm",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [rows, columns])],
        [helper.make_tensor("b", TensorProto.INT8, [inner, columns], weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = random.integers(0, 255, (rows, inner), dtype=np.uint8)
    seconds = _median(lambda: session.run(None, {"a": values}))
    return 2 * rows * inner * columns / seconds


def weight_operations(graph: onnx.ModelProto, tokens: int) -> int:
    """Operations of all products with weights for a window of `tokens`."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    products = ("MatMul", "MatMulInteger", "DynamicQuantizeMatMul", "Gemm", "Attention", "QAttention")
    total = 0
    for node in graph.graph.node:
        if node.op_type in products:
            matrices = [sizes[name] for name in node.input if len(sizes.get(name, ())) == 2]
            total += sum(2 * tokens * rows * columns for rows, columns in matrices[:1])
    return total


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__)
    parser.add_argument("--artifact", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 167, 256, 384])
    options = parser.parse_args()
    print(f"{cpu_model()}, {options.threads} threads")
    rates = {shape: gemm_rate(*shape, options.threads) for shape in _SHAPES}
    for shape, rate in rates.items():
        print(f"int8 GEMM {' x '.join(map(str, shape)):<20}{rate / 1e9:>8.0f} GOPS")
    peak = max(rates.values())
    artifact = load_artifact(options.artifact)
    graph = onnx.load(str(artifact.model_path))
    ways = [QuestionAnswerer(artifact, threads=options.threads)]
    if ways[0].graph.name == KERNEL:
        ways.append(QuestionAnswerer(artifact, threads=options.threads, kernel=False))
    for tokens in options.lengths:
        operations = weight_operations(graph, tokens)
        for answerer in ways:
            seconds = _median(partial(answerer.infer, [_window(tokens)]))
            print(
                f"{answerer.graph.name:<12}at {tokens:>4} tokens {seconds * 1000:>7.2f} ms, "
                f"{operations / 1e9:.2f} G operations with weights: {operations / seconds / 1e9:.0f} GOPS, "
                f"{operations / seconds / peak:.0%} of peak"
            )
    return 0


def _window(tokens: int) -> Window:
    ids = np.random.default_rng(tokens).integers(1000, 20000, tokens)
    return Window(ids, np.zeros(tokens, dtype=np.int64), 1, 0, 0, tokens - 2)


def _median(call: Callable[[], object], seconds: float = 1.5) -> float:
    times: list[float] = []
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        call()
        times.append(time.perf_counter() - now)
    return statistics.median(times[len(times) // 5 :])  # the first fifth is the warm-up


if __name__ == "__main__":
    sys.exit(main())
