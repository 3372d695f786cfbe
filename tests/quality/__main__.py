"""`python -m tests.quality [MODEL]`: prints the probe set's table for a model card, and wrong answers."""

import argparse
from pathlib import Path

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.settings import DEFAULT_MODEL
from tests.quality.judgement import judge, table
from tests.quality.probe_set import probe_set


def main() -> None:
    """Print a model's accuracy on the probe set."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=main.__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=DEFAULT_MODEL, help="model folder")
    parser.add_argument("--wrong", action="store_true", help="list every wrong answer too")
    arguments = parser.parse_args()
    verdicts = judge(QuestionAnswerer(load_artifact(arguments.model)), probe_set())
    print(table(verdicts))
    if arguments.wrong:
        for verdict in verdicts:
            if not verdict.right:
                wanted = " / ".join(verdict.probe.answers) or "no answer"
                print(f"\n{verdict.probe.question}\n  wanted: {wanted}")
                print(f"  got: {verdict.answer or 'no answer'} (without the option: {verdict.forced})")


if __name__ == "__main__":
    main()
