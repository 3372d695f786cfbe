"""Optimum: its dynamic int8 quantization for avx512_vnni and its pipeline on ONNX Runtime."""

from benchmarks.worker import Answerer, Setup

TITLE = "optimum pipeline, ONNX Runtime int8"
OVER = "in process"
REQUIREMENTS = [
    *("torch==2.13.0", "transformers==4.57.6", "optimum==2.1.0", "optimum-onnx==0.1.0"),
    *("onnx==1.23.2", "onnxruntime==1.32.0"),
]


def start(setup: Setup) -> Answerer:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForQuestionAnswering, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig
    from transformers import AutoTokenizer, pipeline

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    folder = setup.work / "int8"
    if not (folder / "model_quantized.onnx").exists():
        plain = ORTModelForQuestionAnswering.from_pretrained(setup.model, export=True)
        recipe = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
        ORTQuantizer.from_pretrained(plain).quantize(save_dir=folder, quantization_config=recipe)
    model = ORTModelForQuestionAnswering.from_pretrained(
        folder, file_name="model_quantized.onnx", session_options=options
    )
    tokenizer = AutoTokenizer.from_pretrained(setup.model)
    ask = pipeline("question-answering", model=model, tokenizer=tokenizer)
    return lambda question, context: ask(question=question, context=context)["answer"]
