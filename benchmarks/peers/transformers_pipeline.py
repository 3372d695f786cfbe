"""The question-answering pipeline of transformers 4.57 with torch fp32."""

from benchmarks.worker import Answerer, Setup

TITLE = "transformers pipeline, torch fp32"
OVER = "in process"
REQUIREMENTS = ["torch==2.13.0", "transformers==4.57.6"]


def start(setup: Setup) -> Answerer:
    import torch
    from transformers import pipeline

    torch.set_num_threads(setup.threads)
    # Explicit, since the default is the dtype of the saved weights: with fp16 a CPU is 3 times slower.
    ask = pipeline(
        "question-answering", model=setup.model, tokenizer=setup.model, device="cpu", dtype=torch.float32
    )
    return lambda question, context: ask(question=question, context=context)["answer"]
