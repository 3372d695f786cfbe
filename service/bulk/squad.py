"""Owns the SQuAD JSON format, streamed by article, with predictions added; knows no inference."""

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, Any, BinaryIO

import ijson
import msgspec

from service.bulk.rows import Outcome, Problem, Row, answer_value, ask, refuse, refuse_taken
from service.bulk.task import BadFile, Task


class Squad:
    """A SQuAD file, version 1 or 2; one article at a time is in memory (SQuAD's largest: 0.5 MB)."""

    def __init__(self, task: Task) -> None:
        self._path, self._columns, self._parameters = task.input, task.columns, task.parameters

    def rows(self) -> Iterator[Row]:
        """All questions in order; a malformed article, paragraph or question is one invalid row."""
        size = max(self._path.stat().st_size, 1)
        with self._open() as file:
            for article in self._articles(file):
                for row, _ in self._questions(article):
                    yield replace(row, share=file.tell() / size)

    def write(self, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
        """Write the file with a prediction in each question; invalid questions are omitted."""
        name = self._columns.answer
        with self._open() as file:
            version = next(ijson.items(file, "version"), None)
        head = {} if version is None else {"version": version}
        out.write(msgspec.json.encode(head).removesuffix(b"}") + (b"," if head else b"") + b'"data":[')
        with self._open() as file:
            for number, article in enumerate(self._articles(file)):
                answered = set()
                for (_, question), outcome in zip(self._questions(article), outcomes, strict=False):
                    if question is not None and not isinstance(outcome, Problem):
                        question[name] = answer_value(outcome, self._parameters)
                        answered.add(id(question))
                for paragraph in _paragraphs(article):
                    if isinstance(paragraph, dict) and isinstance(paragraph.get("qas"), list):
                        paragraph["qas"] = [asked for asked in paragraph["qas"] if id(asked) in answered]
                out.write((b"," if number else b"") + b"\n" + msgspec.json.encode(article))
        out.write(b"\n]}\n")

    def _open(self) -> BinaryIO:
        """The file, positioned after a byte order mark."""
        file = self._path.open("rb")
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        return file

    def _articles(self, file: IO[bytes]) -> Iterator[Any]:
        try:
            article = None
            for article in ijson.items(file, "data.item", use_float=True):
                yield article
            if article is None:
                with self._open() as again:
                    if ("data", "start_array", None) not in ijson.parse(again):
                        raise BadFile(f"{self._path} has no list named data, so it is not a SQuAD file.")
        except ijson.JSONError as error:
            raise BadFile(f"{self._path} is not valid JSON: {' '.join(str(error).split())[:200]}.") from None

    def _questions(self, article: Any) -> Iterator[tuple[Row, dict[str, Any] | None]]:
        """A row per question of an article, with its object if a prediction can be added to it."""
        title = article.get("title") if isinstance(article, dict) else None
        for paragraph in _paragraphs(article):
            asked = paragraph.get("qas") if isinstance(paragraph, dict) else None
            if not isinstance(asked, list):
                yield refuse("This is not an article or paragraph with questions (qas)."), None
                continue
            for question in asked:
                if not isinstance(question, dict):
                    yield refuse("The question is not a JSON object."), None
                    continue
                yield self._row(title, paragraph, question), question

    def _row(self, title: object, paragraph: Mapping[str, Any], question: Mapping[str, Any]) -> Row:
        names = self._columns
        record = {
            names.id: question.get("id"),
            "title": title,
            names.question: question.get("question"),
            names.context: paragraph.get("context"),
        }
        row = ask(record, names)
        if names.answer in question:
            return refuse_taken(row, names.answer)
        return row


def write_predictions(rows: Iterator[Row], outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
    """Write `{"id": "answer", ...}`, the input of SQuAD's evaluation script."""
    before = b"{"
    for row, outcome in zip(rows, outcomes, strict=True):
        if not isinstance(outcome, Problem):
            pair = msgspec.json.encode(row.id) + b": " + msgspec.json.encode(outcome[0].answer)
            out.write(before + b"\n" + pair)
            before = b","
    out.write(b"{}\n" if before == b"{" else b"\n}\n")


def _paragraphs(article: Any) -> list[Any]:
    """The paragraphs of an article; a malformed article is returned as one, to be reported as invalid."""
    paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
    return paragraphs if isinstance(paragraphs, list) else [article]
