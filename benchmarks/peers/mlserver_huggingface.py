"""MLServer's Hugging Face runtime, with the pins that it needs."""

import json
import os
import sys
from pathlib import Path

from benchmarks.worker import Answerer, Setup, http_answerer

TITLE = "MLServer HuggingFace runtime, torch fp32"
OVER = "HTTP"
# Its own requirements allow incompatible versions.
REQUIREMENTS = [
    *("mlserver==1.6.1", "mlserver-huggingface==1.6.1", "transformers==4.41.2", "optimum==1.21.4"),
    *("torch==2.13.0", "fastapi<0.116", "starlette<0.47", "uvloop<0.20"),
]


def start(setup: Setup) -> Answerer:
    (setup.work / "settings.json").write_text(
        json.dumps({"http_port": setup.port, "grpc_port": setup.port + 1, "metrics_port": setup.port + 2})
    )
    (setup.work / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "qa",
                "implementation": "mlserver_huggingface.HuggingFaceRuntime",
                "parameters": {"extra": {"task": "question-answering", "pretrained_model": setup.model}},
            }
        )
    )
    command = [str(Path(sys.executable).parent / "mlserver"), "start", str(setup.work)]
    # It installs TensorFlow, which the required transformers version cannot import.
    environment = os.environ | {"USE_TF": "0", "USE_TORCH": "1"}
    # It writes files to its working directory.
    server = setup.start_server(command, environment=environment, folder=setup.work)

    def entry(name: str, text: str) -> dict[str, object]:
        return {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}

    return http_answerer(
        server,
        setup.port,
        "/v2/models/qa/infer",
        lambda question, context: {"inputs": [entry("question", question), entry("context", context)]},
        lambda body: str(json.loads(body["outputs"][0]["data"][0])["answer"]),
    )
