"""Hooks of schemathesis: cases whose parameters contradict each other are dropped.

JSON Schema cannot compare two fields, or a field with a question's length in tokens.
"""

import math
from typing import Any

import schemathesis

SPECIALS = 4  # special tokens of a window, at most


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Keep a case unless its parameters have valid types and contradict each other."""
    bodies = case.body if isinstance(case.body, list) else [case.body]
    return not any(contradictory(body) for body in bodies if isinstance(body, dict))


def contradictory(body: dict[str, Any]) -> bool:
    """Whether the overlap is no smaller than the window, or the question may fill the window."""
    parameters = body.get("parameters")
    if not isinstance(parameters, dict):
        return False
    window, overlap = parameters.get("max_seq_len") or 384, parameters.get("doc_stride") or 0
    question = parameters.get("max_question_len") or math.inf
    if not all(isinstance(number, int | float) for number in (window, overlap, question)):
        return False
    return bool(window >= 1 and (overlap >= window or window <= min(question, len(str(body))) + SPECIALS))
