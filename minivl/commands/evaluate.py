"""`python -m minivl eval`: ask the model every question of a file, and score its answers.

With --out each answer is a line of a file as soon as it is there, and a run that was broken off goes on where it
stopped: batches are always made of the same rows, so that the scores are those of a run in one go. Rows that can't be
asked are skipped, counted and listed, and make the exit code 1.
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

from tqdm import tqdm

from ..checkpoint import checkpoint_folder
from ..generate import generate
from ..model import InfiniteVL
from ..processor import Inputs, Processor, load_processor
from . import questions
from .conversation import message
from .faults import FAULTS
from .options import add_looks, add_model, add_sampling, dtype_name, look, read_model, sampling, whole
from .questions import Question
from .results import Results, fingerprint, model_files
from .scoring import METRICS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="JSON or JSONL of questions")
    parser.add_argument("--media", type=Path, metavar="DIR", help="where its files are (default: beside it)")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="keep each answer here, and go on from it")
    parser.add_argument("--metric", choices=METRICS, help="for rows that name none (default: choice, of choices)")
    suffixes = "; ".join(f"{name}: {metric.suffix or 'nothing'}" for name, metric in METRICS.items())
    parser.add_argument("--suffix", metavar="TEXT", help=f"how each question ends (default: {suffixes})")
    parser.add_argument("--batch-size", type=whole, default=1, metavar="N", help="questions at a time (default: 1)")
    parser.add_argument("--limit", type=whole, metavar="N", help="only the first N rows")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told to be")
    add_sampling(parser, seed=0)
    add_looks(parser)
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object")


def run(args: argparse.Namespace) -> int:
    options, looks = sampling(args), look(args)
    folder = checkpoint_folder(args.model)
    media = args.data.parent if args.media is None else args.media
    if not media.is_dir():
        raise FileNotFoundError(f"--media is {media}, which is not a folder")
    asked = questions.read(args.data, media=media, metric=args.metric, limit=args.limit)
    processor = load_processor(folder)
    # What an answer depends on. The limit adds rows; the size of a batch and the device touch last digits only.
    conditions = {
        "model": fingerprint(*model_files(folder)),
        "data": fingerprint(args.data),
        "media": args.media and str(args.media),
        "metric": args.metric,
        "suffix": args.suffix,
        "system": args.system,
        "looks": looks,
        "dtype": dtype_name(args),
        "int8": args.int8 or None,  # as it is not there in files of before
        **options,
    }
    results = Results(args.out, conditions)
    start = time.perf_counter()
    able = [question for question in asked if not question.fault]
    if any(question.id not in results.rows for question in able):
        model, _ = read_model(args)
        ask = Asker(model, processor, options, looks, args.system, args.suffix)
        ask.all(able, results, args.batch_size)
    report = scores(asked, results)
    report["seconds"] = round(time.perf_counter() - start, 2)
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print("\n".join(table(report)))
    return 1 if report["skipped"] else 0


@dataclasses.dataclass
class Asker:
    model: InfiniteVL
    processor: Processor
    options: dict
    looks: dict[str, dict]
    system: str | None
    suffix: str | None

    def all(self, asked: list[Question], results: Results, batch_size: int) -> None:
        done = sum(question.id in results.rows for question in asked)
        with tqdm(total=len(asked), initial=done, desc="answering", unit="row", delay=2, disable=None) as bar:
            for first in range(0, len(asked), batch_size):
                batch = asked[first : first + batch_size]
                fresh = [question for question in batch if question.id not in results.rows]
                if fresh:
                    self.batch(batch, results)
                    bar.update(len(fresh))

    def batch(self, asked: list[Question], results: Results) -> None:
        """Answer all rows of a batch, even if only some are missing: in other company the last digits may differ."""
        asked, inputs = self.inputs(asked)
        if all(question.id in results.rows for question in asked):
            return
        answers: list[list[int]] = [[] for _ in asked]
        for step in generate(self.model, inputs, **self.options):
            for answer, token in zip(answers, [step] if len(answers) == 1 else step.tolist(), strict=True):
                answer += [token] if token >= 0 else []
        for question, answer in zip(asked, answers, strict=True):
            if question.id not in results.rows:
                results.add(question, self.processor.tokenizer.decode(answer), len(answer))

    def inputs(self, asked: list[Question]) -> tuple[list[Question], Inputs | None]:
        """The questions whose pictures can be read, and their inputs; the others learn their fault."""
        try:
            return asked, self.processor([self.talk(question) for question in asked])
        except FAULTS:
            for question in asked:
                try:
                    self.processor(self.talk(question))
                except FAULTS as fault:
                    question.fault = " ".join(str(fault).split())
        able = [question for question in asked if not question.fault]
        return able, self.processor([self.talk(question) for question in able]) if able else None

    def talk(self, question: Question) -> list[dict]:
        return message(question.asked(self.suffix), question.parts, self.looks, self.system)


def scores(asked: list[Question], results: Results) -> dict:
    """For each metric the rows that were scored, their mean, and how many were skipped; then which, and why."""
    report = {"metrics": {}, "skipped": {question.id: question.fault for question in asked if question.fault}}
    for name in dict.fromkeys(question.metric for question in asked):
        rows = [question for question in asked if question.metric == name]
        found = [results.rows[question.id]["score"] for question in rows if not question.fault]
        report["metrics"][name or "unknown"] = {
            "rows": len(found),
            "score": math.fsum(found) / len(found) if found else None,
            "skipped": len(rows) - len(found),
        }
    return report


def table(report: dict) -> list[str]:
    lines = [f"{'metric':10} {'rows':>7} {'score':>8} {'skipped':>8}"]
    for name, figures in report["metrics"].items():
        score = "—" if figures["score"] is None else f"{figures['score']:.4f}"
        lines.append(f"{name:10} {figures['rows']:7,} {score:>8} {figures['skipped']:8,}")
    if report["skipped"]:
        lines += ["", "skipped rows:", *(f"  {name}: {fault}" for name, fault in report["skipped"].items())]
    return lines
