"""Scores answers to the probes and formats the results; independent of HTTP and of the required accuracy.

Every probe is asked with `handle_impossible_answer` at the artifact's own threshold. The answer to an
answerable probe is right if its F1 with an accepted answer is at least 0.8 (after SQuAD's normalisation),
that to an unanswerable probe if it is "no answer". Answerable probes are also asked without the option,
which shows how many right answers the threshold costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from export import squad
from service.engine.answering import QuestionAnswerer
from service.engine.parameters import Parameters
from tests.quality.probe_set import Probe

LEAST_F1 = 0.8


@dataclass(frozen=True, slots=True)
class Verdict:
    """A probe and the model's answer; `forced` is its answer without `handle_impossible_answer`."""

    probe: Probe
    answer: str
    forced: str

    @property
    def right(self) -> bool:
        return is_right(self.probe, self.answer)

    @property
    def right_if_forced(self) -> bool:
        return is_right(self.probe, self.forced)


def is_right(probe: Probe, answer: str) -> bool:
    """Whether `answer` ("" for none) matches an accepted one."""
    if not probe.answers:
        return answer == ""
    return squad.f1(answer, probe.answers) >= LEAST_F1  # equal texts have 1


def judge(answerer: QuestionAnswerer, probes: Sequence[Probe]) -> list[Verdict]:
    """Ask every probe."""

    def ask(probe: Probe, *, may_decline: bool) -> str:
        parameters = Parameters(handle_impossible_answer=may_decline)
        ((best,),) = answerer.answer([(probe.question, probe.context)], parameters)
        return best.answer

    return [Verdict(probe, ask(probe, may_decline=True), ask(probe, may_decline=False)) for probe in probes]


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown for the model card: the share of right answers by kind of question and genre of text."""
    rows = [
        "| | right | answerable | answerable, without the option | unanswerable |",
        "|---|---:|---:|---:|---:|",
    ]
    kinds = sorted({verdict.probe.kind for verdict in verdicts})
    rows += [_row(kind, [v for v in verdicts if v.probe.kind == kind]) for kind in kinds]
    genres = sorted({verdict.probe.genre for verdict in verdicts})
    rows += [_row(f"*in {genre}*", [v for v in verdicts if v.probe.genre == genre]) for genre in genres]
    rows.append(_row("**all**", verdicts))
    return "\n".join(rows)


def _row(name: str, verdicts: Sequence[Verdict]) -> str:
    answerable = [verdict for verdict in verdicts if verdict.probe.answers]
    unanswerable = [verdict for verdict in verdicts if not verdict.probe.answers]
    cells = [
        _share([verdict.right for verdict in verdicts]),
        _share([verdict.right for verdict in answerable]),
        _share([verdict.right_if_forced for verdict in answerable]),
        _share([verdict.right for verdict in unanswerable]),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _share(right: Sequence[bool]) -> str:
    return f"{sum(right)} of {len(right)}"
