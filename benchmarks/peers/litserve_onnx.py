"""LitServe with ONNX Runtime fp32, a typical custom server, with the pipeline's decoding."""

import sys

from benchmarks.worker import Answerer, Setup, http_answerer

TITLE = "LitServe, ONNX Runtime fp32"
OVER = "HTTP"
REQUIREMENTS = [
    *("litserve", "torch==2.13.0", "transformers==4.57.6", "optimum==2.1.0", "optimum-onnx==0.1.0"),
    *("onnx==1.23.2", "onnxruntime==1.32.0"),
]
_SERVER = """
import sys
import litserve, onnxruntime
from optimum.onnxruntime import ORTModelForQuestionAnswering
from transformers import AutoTokenizer, pipeline

class Api(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(sys.argv[3])
        model = ORTModelForQuestionAnswering.from_pretrained(
            sys.argv[1], export=True, session_options=options
        )
        self.ask = pipeline(
            "question-answering", model=model, tokenizer=AutoTokenizer.from_pretrained(sys.argv[1])
        )
    def decode_request(self, request):
        return request
    def predict(self, asked):
        return self.ask(question=asked["question"], context=asked["context"])
    def encode_response(self, answer):
        return {"answer": answer["answer"]}

if __name__ == "__main__":
    litserve.LitServer(Api(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error"
    )
"""


def start(setup: Setup) -> Answerer:
    file = setup.work / "server.py"
    file.write_text(_SERVER)
    command = [sys.executable, str(file), setup.model, str(setup.port), str(setup.threads)]
    return http_answerer(setup.start_server(command), setup.port, "/predict")
