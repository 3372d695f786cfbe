"""Fine-tuning of an encoder for extractive question answering on SQuAD files: `python -m export.finetune`."""


class FinetuneError(Exception):
    """Training cannot start or continue: one sentence that says what, why and what to do."""
