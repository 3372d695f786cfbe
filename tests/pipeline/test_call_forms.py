"""Upstream's documented examples and call forms, compared between the transformers pipeline and ours."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qa_onnx import QuestionAnsweringPipeline, pipeline

from service.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[2]
HUGGING_FACE, EXPORTED = ROOT / "tests/models/tiny", ROOT / "tests/models/tiny-fp32"

# Examples of upstream's documentation, and long texts of our own.
LIVES = {"question": "Where do I live?", "context": "My name is Wolfgang and I live in Berlin"}
NAMES = {
    "question": "What is the name of the repository ?",
    "context": "Pipeline has been included in the huggingface/transformers repository",
}
MILL = "The mill was built by Ingrid Solheim in 1902 and sold to Amelia Hart in 1931. "
LONG = {"question": "Who bought the mill?", "context": MILL * 40}
Q, C = LIVES["question"], LIVES["context"]

Pipe = Any
Form = Callable[[Pipe], Any]

FORMS: dict[str, Form] = {
    "keywords": lambda qa: qa(question=Q, context=C),
    "a dict": lambda qa: qa(LIVES),
    "dict's keywords": lambda qa: qa(**NAMES),
    "two texts": lambda qa: qa(Q, C),
    "a list of one dict": lambda qa: qa([LIVES]),
    "a list of dicts": lambda qa: qa([LIVES, NAMES]),
    "a tuple of dicts": lambda qa: qa((LIVES, NAMES)),
    "several dicts": lambda qa: qa(LIVES, NAMES),
    "data, a dict": lambda qa: qa(data=LIVES),
    "data, a list": lambda qa: qa(data=[LIVES, NAMES]),
    "X": lambda qa: qa(X=[LIVES, NAMES]),
    "lists of each": lambda qa: qa(question=[Q, NAMES["question"]], context=[C, NAMES["context"]]),
    "lists of one": lambda qa: qa(question=[Q], context=[C]),
    "questions of one context": lambda qa: qa(question=[Q, "Who?"], context=C),
    "a dict of lists": lambda qa: qa({"question": [Q, "Who?"], "context": [C, NAMES["context"]]}),
    "a dict of lists of one": lambda qa: qa({"question": [Q], "context": [C]}),
    "a list of one sample": lambda qa: qa([qa.create_sample(Q, C)]),
    "a list of samples": lambda qa: qa(qa.create_sample(question=[Q, "Who?"], context=[C, C])),
    "a generator": lambda qa: list(qa(example for example in [LIVES, NAMES])),
    "a SquadExample": lambda qa: qa(squad_example(LIVES)),
    "a list of SquadExamples": lambda qa: qa([squad_example(LIVES), squad_example(NAMES)]),
    "a generator of SquadExamples": lambda qa: list(qa(squad_example(one) for one in [LIVES, NAMES])),
    "a Dataset": lambda qa: list(qa(dataset([LIVES, NAMES]))),
    "a KeyDataset": lambda qa: list(qa(key_dataset([{"row": LIVES}, {"row": NAMES}], "row"))),
    "an IterableDataset": lambda qa: list(qa(iterable_dataset([LIVES, NAMES]))),
    "a map": lambda qa: qa(map(dict, [LIVES, NAMES])),
    "lists of none": lambda qa: qa(question=[], context=[]),
    "no questions": lambda qa: qa([]),
    "top_k": lambda qa: qa(LIVES, top_k=3),
    "topk": lambda qa: qa(LIVES, topk=2),
    "top_k of a list": lambda qa: qa([LIVES, NAMES], top_k=2),
    "long": lambda qa: qa(LONG),
    "long, windows": lambda qa: qa(LONG, max_seq_len=64, doc_stride=16, top_k=3),
    "a long question": lambda qa: qa(question=Q * 9, context=C, max_question_len=64),
    "max_answer_len": lambda qa: qa(LONG, max_answer_len=2, top_k=5),
    "impossible": lambda qa: qa(LONG, handle_impossible_answer=True, top_k=3),
    "not aligned": lambda qa: qa(NAMES, align_to_words=False, top_k=3),
    "padding": lambda qa: qa(NAMES, padding="longest"),
    "batch_size": lambda qa: qa([LIVES, NAMES, LIVES], batch_size=2),
    "top_k 20": lambda qa: qa(LONG, top_k=20),
    "topk and top_k": lambda qa: qa(LIVES, topk=3, top_k=2),
    "top_k None": lambda qa: qa(LIVES, top_k=None),
    "impossible, a list": lambda qa: qa([LIVES, NAMES], handle_impossible_answer=True),
    "max_seq_len above the model's": lambda qa: qa(LIVES, max_seq_len=10_000),
    "no overlap": lambda qa: qa(LONG, max_seq_len=64, doc_stride=0),
    "padding to max_length": lambda qa: qa(NAMES, padding="max_length"),
    "num_workers": lambda qa: qa(question=Q, context=C, num_workers=0),
    "white space": lambda qa: qa(question=Q, context="  "),
    "nothing": lambda qa: qa(),
    "None": lambda qa: qa(None),
    "an empty dict": lambda qa: qa({}),
    "no context": lambda qa: qa(question=Q, context=None),
    "a number": lambda qa: qa(question=5, context=C),
    "an empty question in a list": lambda qa: qa([LIVES, {"question": "", "context": C}]),
    "top_k -1": lambda qa: qa(LIVES, top_k=-1),
    "a question without a context": lambda qa: qa(question=Q),
    "no dict": lambda qa: qa("only a question"),
    "a list of texts": lambda qa: qa([Q, C]),
    "no key": lambda qa: qa({"question": Q}),
    "an empty context": lambda qa: qa(question=Q, context=""),
    "an empty question": lambda qa: qa(question="", context=C),
    "no question": lambda qa: qa({"question": None, "context": C}),
    "lists of two lengths": lambda qa: qa(question=[Q, Q], context=[C]),
    "contexts of one question": lambda qa: qa(question=Q, context=[C, C]),
    "top_k 0": lambda qa: qa(LIVES, top_k=0),
    "max_answer_len 0": lambda qa: qa(LIVES, max_answer_len=0),
    "doc_stride": lambda qa: qa(LIVES, max_seq_len=64, doc_stride=65),
}


def squad_example(example: dict[str, str]) -> Any:
    """Upstream's own class of examples."""
    squad = pytest.importorskip("transformers.data.processors.squad", reason="transformers is not installed")
    return squad.SquadExample(None, example["question"], example["context"], None, None, None)


def dataset(examples: list[dict[str, str]]) -> Any:
    """A map-style torch Dataset of `examples`."""
    data = pytest.importorskip("torch.utils.data", reason="torch is not installed")

    class Examples(data.Dataset):  # type: ignore[misc, name-defined] # torch may be missing
        def __len__(self) -> int:
            return len(examples)

        def __getitem__(self, index: int) -> dict[str, str]:
            return examples[index]

    return Examples()


def key_dataset(rows: list[dict[str, Any]], key: str) -> Any:
    utilities = pytest.importorskip("transformers.pipelines.pt_utils", reason="transformers is not installed")
    return utilities.KeyDataset(rows, key)


def iterable_dataset(examples: list[dict[str, str]]) -> Any:
    data = pytest.importorskip("torch.utils.data", reason="torch is not installed")

    class Examples(data.IterableDataset):  # type: ignore[misc, name-defined] # torch may be missing
        def __iter__(self) -> Iterator[dict[str, str]]:
            return iter(examples)

    return Examples()


@pytest.fixture(scope="module")
def ours() -> QuestionAnsweringPipeline:
    return pipeline("question-answering", model=str(EXPORTED))


@pytest.fixture(scope="module")
def upstream() -> Pipe:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return transformers.pipeline(
        "question-answering", model=str(HUGGING_FACE), tokenizer=str(HUGGING_FACE), device="cpu"
    )


def called(form: Form, qa: Pipe) -> Any:
    """The result of a call, or the type of exception it raises."""
    try:
        return form(qa)
    except (KeyError, ValueError, TypeError) as error:
        return type(error)


def same(ours: Any, theirs: Any) -> None:
    """Equal types, keys, texts and offsets, and scores within 1e-4."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        assert [type(value) for value in ours.values()] == [type(value) for value in theirs.values()]
        assert ours.pop("score") == pytest.approx(theirs.pop("score"), abs=1e-4)
        assert ours == theirs
    else:
        assert ours == theirs


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_both_pipelines_give_the_same_result(
    form: Form, ours: QuestionAnsweringPipeline, upstream: Pipe
) -> None:
    same(called(form, ours), called(form, upstream))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_defaults_set_at_construction(upstream: Pipe) -> None:
    import transformers

    options: dict[str, Any] = {"top_k": 2, "max_answer_len": 3, "max_seq_len": 64, "doc_stride": 8}
    theirs = transformers.pipeline(
        "question-answering", model=str(HUGGING_FACE), tokenizer=str(HUGGING_FACE), device=-1, **options
    )
    ours = pipeline("question-answering", model=EXPORTED, tokenizer=str(HUGGING_FACE), device=-1, **options)
    same(ours(LONG), theirs(LONG))
    same(ours(LONG, top_k=1), theirs(LONG, top_k=1))


def test_fewer_answers_than_top_k(ours: QuestionAnsweringPipeline, upstream: Pipe) -> None:
    """Upstream pads with empty answers of score 0; ours does not."""
    theirs = upstream(question=Q, context="Berlin", top_k=4)
    same(ours(question=Q, context="Berlin", top_k=4), theirs[0])
    assert [answer["score"] for answer in theirs[1:]] == [0.0] * (len(theirs) - 1)


def test_long_questions_are_truncated_as_documented(ours: QuestionAnsweringPipeline, upstream: Pipe) -> None:
    """Upstream documents max_question_len, but applies it with slow tokenizers only."""
    same(ours(question="?" * 12, context=C, max_question_len=6), upstream(question="?" * 6, context=C))


def test_answers_are_slices_of_their_contexts(ours: QuestionAnsweringPipeline) -> None:
    answer = ours(question=Q, context=C)
    assert C[answer["start"] : answer["end"]] == answer["answer"]
    assert list(answer) == ["score", "start", "end", "answer"]


def test_a_generator_is_consumed_lazily(ours: QuestionAnsweringPipeline) -> None:
    asked = []

    def examples() -> Iterator[dict[str, str]]:
        for example in (LIVES, NAMES):
            asked.append(example)
            yield example

    results = ours(examples())
    assert asked == []
    assert next(results)["answer"]
    assert asked == [LIVES]


def test_a_dataset_is_read_lazily(ours: QuestionAnsweringPipeline) -> None:
    results = ours(dataset([LIVES, {"question": "", "context": C}]))
    assert next(results) == ours(LIVES)
    with pytest.raises(ValueError, match="The question is empty"):
        next(results)


def test_an_example_of_a_generator_is_one_question(ours: QuestionAnsweringPipeline) -> None:
    several = {"question": [Q, Q], "context": [C, C]}
    with pytest.raises(ValueError, match="must be one question with one context"):
        next(ours(example for example in [several]))


def test_one_context_is_shared_by_a_list_of_questions(ours: QuestionAnsweringPipeline) -> None:
    """A dict with a list of questions and one context: upstream pairs the questions with its letters."""
    assert ours({"question": [Q, Q], "context": C}) == [ours(LIVES)] * 2
    with pytest.raises(ValueError, match="not as many contexts"):
        ours({"question": [Q, Q], "context": [C]})


def test_rows_of_a_dataset_may_have_other_keys(ours: QuestionAnsweringPipeline) -> None:
    assert ours([{**LIVES, "id": "1", "answers": []}]) == ours(LIVES)


def test_model_and_tokenizer_are_none(ours: QuestionAnsweringPipeline) -> None:
    assert ours.model is None
    assert ours.tokenizer is None


def test_the_default_is_the_shipped_model() -> None:
    for qa in (pipeline(), pipeline("question-answering"), pipeline(task="question-answering", model=None)):
        assert qa.task == "question-answering"
        assert qa(**LIVES)["answer"] == "Berlin"


@pytest.mark.parametrize("task", ["text-classification", "ner", "qa"])
def test_other_tasks_are_rejected(task: str) -> None:
    with pytest.raises(KeyError, match=f"Unknown task {task}: qa_onnx has question-answering alone"):
        pipeline(task)


@pytest.mark.parametrize("model", ["deepset/minilm-uncased-squad2", str(HUGGING_FACE), "/nowhere"])
def test_the_error_for_an_unexported_model_has_the_export_command(model: str) -> None:
    with pytest.raises(ValueError, match=f"'make export MODEL={model} OUTPUT=FOLDER'") as refused:
        pipeline("question-answering", model=model)
    assert str(refused.value).count(". ") == 0


def test_a_model_in_memory_is_rejected() -> None:
    with pytest.raises(ValueError, match="model is a object and must be the name of a folder"):
        pipeline("question-answering", model=object())  # type: ignore[arg-type] # as many scripts do


def test_an_invalid_model_raises_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError):
        pipeline(model=tmp_path)


def test_unknown_parameters_are_warned_of(ours: QuestionAnsweringPipeline) -> None:
    with pytest.warns(UserWarning, match="ignores top_q"):
        ours(LIVES, top_q=3)
