"""Owns the command line and the sequence of stages: `python -m export`; knows no stage's details."""

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers.utils.logging import disable_progress_bar

from export import choose, convert, kernel_graph, manifest, optimize, pack, quantize, smooth, storage, verify
from export.calibrate import calibrate
from export.errors import ExportError
from export.evaluate import ask, evaluate, usable
from export.source import Source, resolve
from export.squad import DataError
from export.stages import stage
from export.tokenizer import TokenizerFacts, save_tokenizer
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import MODEL_FILE, TOKENIZER_FILE, load_artifact
from service.engine.cpu import TARGETS, supports
from service.engine.kernel import PORTABLE
from service.errors import QAError


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; exit status 2 with one sentence, and nothing written, for errors that the user can fix."""
    options = _parser().parse_args(arguments)
    _quiet()
    try:
        _export(options)
    except (ExportError, DataError, QAError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


def _export(options: argparse.Namespace) -> None:
    output: Path = options.output
    manifest.check_output(output)
    recipes = _recipes(options)
    if options.precision == "int8" and not supports(options.target):
        raise ExportError(
            f"This CPU cannot run what is made for {options.target}, so nothing could be verified: "
            "export on one that can, or with --target portable."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        with stage("source"):
            source = resolve(options.model, options.revision, options.trust_remote_code)
            facts = save_tokenizer(source, work, options.max_seq_length)
        finished = _build(source, facts, options, recipes, work)
        manifest.publish(finished, output)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{output} is ready: python -m service serve --model {output}", file=sys.stderr)


def _build(
    source: Source,
    facts: TokenizerFacts,
    options: argparse.Namespace,
    recipes: Sequence[quantize.Recipe],
    work: Path,
) -> Path:
    """Run all stages between source and publication; returns the finished folder inside `work`."""
    with stage("convert") as note:
        plain = work / "plain.onnx"
        convert.convert(source, plain)
        quantize.strip(plain)
        note(plain)

    def load(graph: Path, recipe: quantize.Recipe, precision: str) -> tuple[QuestionAnswerer, ...]:
        """A candidate: an artifact folder for a graph, loaded in every way the service can run it."""
        folder = work / recipe.name
        folder.mkdir(exist_ok=True)
        pack.pack(graph, folder)
        if precision == "int8":
            kernel_graph.write_kernel_graph(folder, facts.max_length)
        shutil.copy(work / TOKENIZER_FILE, folder)
        described(folder, recipe, precision, {}, None)
        answerer = QuestionAnswerer(load_artifact(folder))
        if answerer.graph.name == PORTABLE:
            return (answerer,)
        return answerer, QuestionAnswerer(answerer.artifact, kernel=False)

    def described(
        folder: Path, recipe: quantize.Recipe, precision: str, quality: dict[str, Any], null: float | None
    ) -> None:
        manifest.write(
            folder,
            source,
            facts,
            precision=precision,
            target=options.target if precision == "int8" else "portable",
            recipe=recipe.name,
            opset=convert.opset(folder / MODEL_FILE),
            inputs=convert.inputs(folder / MODEL_FILE),
            null_threshold=null,
            quality=quality,
        )

    graphs = {"plain": plain}
    if any(recipe.graph != "plain" for recipe in recipes):
        with stage("optimize") as note:
            fused, split = work / "fused.onnx", work / "split.onnx"
            if optimize.fusible(source.architecture) and optimize.fuse(plain, source.config, fused):
                graphs["fused"] = fused
                if options.precision == "int8":
                    optimize.drop_mask(fused)
                    if optimize.split(fused, split):
                        graphs["split"] = split
                        quantize.strip(split)
                quantize.strip(fused)
                note(fused)
            else:
                note(f"no fusions for {source.architecture}, the graph stays as it is")
    recipes = [recipe for recipe in recipes if recipe.graph in graphs]
    if not recipes:
        raise ExportError(
            f"There are no such fusions for {source.architecture} models: name a plain recipe, or none."
        )
    quantized: dict[str, Path] = {}
    if options.precision == "int8":
        for recipe in recipes:
            with stage("quantize") as note:
                graph = graphs[recipe.graph]
                quantized[recipe.name] = work / f"{recipe.name}.onnx"
                if recipe.smooth:
                    graph = _smoothed(graph, work, facts.question_first)
                quantize.quantize(graph, recipe, options.target, quantized[recipe.name])
                if recipe.smooth:
                    storage.remove(graph)
                quantize.strip(quantized[recipe.name])
                note(quantized[recipe.name], recipe.name)
    with stage("verify") as note:
        (reference,) = load(plain, quantize.FP32[0], "fp32")
        difference = verify.check_conversion(source, reference)
        note(f"torch and fp32 ONNX differ by {difference:.1e} of the logits' spread")
    quality: dict[str, Any] = {"conversion_error": float(f"{difference:.2e}")}
    candidates = []
    for recipe in recipes:
        if options.precision == "int8":
            answerers = load(quantized[recipe.name], recipe, "int8")
        else:
            plain_one = recipe.graph == "plain"
            answerers = (reference,) if plain_one else load(graphs[recipe.graph], recipe, "fp32")
        candidates.append(choose.Candidate(recipe, answerers[0].artifact.path, answerers))
    gate = choose.Gate(
        options.evaluate[0] if options.evaluate else None, options.evaluate_limit, options.min_f1_ratio
    )
    with stage("evaluate"):
        chosen, results, scores = choose.choose(reference, candidates, gate)
    print(choose.table(results), file=sys.stderr)
    quality["candidates"] = [result.row() for result in results]
    null = None
    if scores is not None and (own := chosen.ways[0].evaluation) is not None:
        entries = [(options.evaluate[0], scores, own)]
        for file in options.evaluate[1:]:
            with stage("evaluate") as note:
                note(file.name)
                pair = [
                    evaluate(answerer, file, options.evaluate_limit, f"{name} on {file.name}")
                    for name, answerer in (("fp32", reference), ("chosen", chosen.candidate.answerers[0]))
                ]
            entries.append((file, *pair))
        null = next((own.null_threshold for _, _, own in entries if own.null_threshold is not None), None)
        quality["evaluation"] = [
            {
                "file": file.name,
                "questions": own.questions,
                "fp32": fp32.scores(),
                "graph": chosen.ways[0].graph,
                "chosen": own.scores(),
            }
            for file, fp32, own in entries
        ]
        for entry in quality["evaluation"]:
            print(
                f"{entry['file']}: {entry['questions']} questions, fp32 {entry['fp32']}, "
                f"chosen {entry['chosen']}",
                file=sys.stderr,
            )
    if options.calibrate is not None:
        with stage("calibrate") as note:
            asked = list(ask(chosen.candidate.answerers[0], usable(options.calibrate, None), "calibrate"))
            found = calibrate(asked, options.most_refused)
            note(f"{options.calibrate.name}: {found.row()}")
        null = found.null_threshold
        quality["calibration"] = {"file": options.calibrate.name, **found.row()}
    folder = chosen.candidate.folder
    described(folder, chosen.candidate.recipe, options.precision, quality, null)
    return folder


def _smoothed(graph: Path, work: Path, question_first: bool) -> Path:
    output = work / f"smooth-{graph.name}"
    smooth.smooth(graph, work / TOKENIZER_FILE, question_first, output)
    return output


def _recipes(options: argparse.Namespace) -> Sequence[quantize.Recipe]:
    known = quantize.INT8 if options.precision == "int8" else quantize.FP32
    if options.recipe is None:
        # fp32 serves as a reference: the graph as converted, without any fusion.
        return known if options.precision == "int8" else known[:1]
    named = [recipe for recipe in known if recipe.name == options.recipe]
    if not named:
        raise ExportError(
            f"There is no {options.precision} recipe {options.recipe}: the recipes are "
            f"{', '.join(recipe.name for recipe in known)}."
        )
    return named


def _quiet() -> None:
    """Silence warnings and progress bars of the libraries."""
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    for name in ("optimum", "transformers", "onnxruntime", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call] # transformers'
    disable_progress_bar()  # type: ignore[no-untyped-call] # transformers'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a Hugging Face question-answering model to a verified ONNX artifact.",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="SOURCE", help="hub id or local folder (safetensors)")
    add(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder to write; replaces an existing artifact",
    )
    add("--revision", metavar="SHA", help="commit, tag or branch of a hub model")
    add("--precision", choices=("int8", "fp32"), default="int8")
    add(
        "--target",
        choices=TARGETS,
        default="portable",
        help="CPUs that the int8 model supports (default: portable, all)",
    )
    add("--recipe", metavar="NAME", help="use this recipe instead of the fastest one that passes")
    add("--max-seq-length", type=int, metavar="N", help="maximum tokens per window (default: the model's)")
    add(
        "--evaluate",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="evaluate candidates by F1 on the first file (SQuAD or plain text), and report F1 on all files; "
        "a file with unanswerable questions sets the null threshold",
    )
    add(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="calibrate the null threshold on this file instead: answerable and unanswerable questions held "
        "out of training (python -m export.finetune --hold-out)",
    )
    add(
        "--most-refused",
        type=float,
        default=0.1,
        metavar="S",
        help="maximum share of its answerable questions to reject (default 0.1)",
    )
    add("--evaluate-limit", type=int, metavar="N", help="evaluate on a seeded sample of N questions")
    add(
        "--min-f1-ratio",
        type=float,
        default=0.99,
        metavar="R",
        help="minimum F1 relative to fp32 (default 0.99)",
    )
    add("--trust-remote-code", action="store_true", help="run custom code of the model")
    return parser


def _stop(signum: int, _: object) -> None:
    """Exit through an exception, so that temporary folders are removed."""
    print("export: stopped; nothing was written.", file=sys.stderr)
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
