"""Writes answers.json: the transformers pipeline's answers to questions.json with the tiny model.

python tests/golden/make_answers.py (with the development environment)
"""

import dataclasses
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

# Every question is asked with each of these; contexts need several windows of 64 tokens.
PARAMETERS: list[dict[str, int | bool]] = [
    {},
    {"top_k": 5},
    {"align_to_words": False, "top_k": 3},
    {"handle_impossible_answer": True, "top_k": 2},
    {"max_answer_len": 3},
    {"max_seq_len": 64, "doc_stride": 16},
    {"max_seq_len": 64, "doc_stride": 24, "top_k": 3, "handle_impossible_answer": True},
]


def main() -> None:
    """Ask the pipeline, which needs transformers 4."""
    from export.parity import ask, load_reference
    from service.engine.parameters import Parameters

    reference = load_reference(str(ROOT / "tests/models/tiny"))
    entries = json.loads((HERE / "questions.json").read_text(encoding="utf-8"))
    found = [
        {
            "parameters": parameters,
            "answers": [
                [dataclasses.asdict(answer) for answer in ask(reference, question, entry["context"], asked)]
                for entry in entries
                for question in entry["questions"]
            ],
        }
        for parameters in PARAMETERS
        for asked in [Parameters(**parameters)]  # type: ignore[arg-type] # names are checked by the call
    ]
    text = json.dumps(found, ensure_ascii=False, indent=0)
    (HERE / "answers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
