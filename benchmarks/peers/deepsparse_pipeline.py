"""DeepSparse's own pipeline (last release, discontinued), with the pins that it needs."""

import os
import shutil
from pathlib import Path

from benchmarks.worker import Answerer, Setup

TITLE = "DeepSparse pipeline, fp32"
OVER = "in process"
REQUIREMENTS = [
    *("deepsparse[transformers]==1.8.0", "torch==2.13.0", "transformers==4.39.3"),
    *("numpy<2", "pyarrow<18"),
]
# It compiles fixed lengths and pads inputs: more lengths mean less padding and a longer start.
_LENGTHS = [64, 128, 160, 192, 224, 256, 320, 384]


def start(setup: Setup) -> Answerer:
    os.environ["NM_DISABLE_ANALYTICS"] = "True"
    from deepsparse import Pipeline

    folder = setup.work / "onnx"
    if not (folder / "model.onnx").exists():
        _convert(Path(setup.model), folder)
    ask = Pipeline.create(
        task="question-answering",
        model_path=str(folder),
        sequence_length=_LENGTHS,
        doc_stride=128,
        num_cores=setup.threads,
    )
    return lambda question, context: str(ask(question=question, context=context).answer)


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering

    folder.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, folder)
    model = AutoModelForQuestionAnswering.from_pretrained(source).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    outputs = ["start_logits", "end_logits"]
    ids = torch.ones(1, 128, dtype=torch.long)
    torch.onnx.export(
        model,
        (ids, ids, ids),
        str(folder / "model.onnx"),
        input_names=names,
        output_names=outputs,
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in [*names, *outputs]},
        opset_version=13,
        dynamo=False,
    )
