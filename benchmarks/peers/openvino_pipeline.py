"""OpenVINO through optimum-intel's pipeline, with the precision that OpenVINO selects for this CPU."""

from benchmarks.worker import Answerer, Setup

TITLE = "optimum-intel pipeline, OpenVINO"
OVER = "in process"
REQUIREMENTS = ["torch==2.13.0", "optimum-intel[openvino]", "transformers<4.58"]
# A dependency for images whose PyPI build is incompatible with the CPU build of torch.
UNWANTED = ["torchvision"]


def start(setup: Setup) -> Answerer:
    from optimum.intel import OVModelForQuestionAnswering
    from transformers import AutoTokenizer, pipeline

    model = OVModelForQuestionAnswering.from_pretrained(
        setup.model,
        export=True,
        ov_config={"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": setup.threads},
    )
    tokenizer = AutoTokenizer.from_pretrained(setup.model)
    ask = pipeline("question-answering", model=model, tokenizer=tokenizer)
    return lambda question, context: ask(question=question, context=context)["answer"]
