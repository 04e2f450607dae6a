"""`python -m export.mutate bundles/NAME`: how many mutants of a bundle the gates of export and its goldens refuse.

The source is the run of this name; for a model from elsewhere, the words of its export follow, such as
`bundles/digits module net:Net --weights W.safetensors --examples E.npz --spec spec.toml`.

A mutant that differs from the reference by no more than the tolerance on every probe is equivalent and not counted. The
others must be refused at export, and should be refused at load. The table also counts those that are refused without
the knowledge of where the weights come from. The exit status is 1 if export accepts a structured mutant or more than
1 % of the single weights.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.golden.gate import check_pool
from export.gates.golden.pool import draw_pool
from export.gates.golden.ratios import measure_ratios
from export.gates.golden.reference import reference_cases
from export.gates.metric import check_metric
from export.gates.parity import check_parity
from export.gates.proof import prove
from export.gates.requests.checked_request import candidate_model
from export.gates.requests.gate import check_requests
from export.gates.structure import check_structure
from export.mutation.corpus import draw_mutants
from export.mutation.mutant import SINGLE_WEIGHT, Mutant
from export.source import Source
from export.sources.registry import WAYS, load, parse_source
from export.sources.run import run_source
from service.bundle import Bundle, GoldenCase, current_version, open_bundle
from service.engine.sessions.tokenizer import read_tokenizer
from service.engine.verification.parity import replay_cases
from service.errors import BundleError
from service.tasks.replay import replay_requests
from training.checkpoint import load_run

MAX_MISSED_SHARE = 0.01  # of the single weights
GateFunction = Callable[[Candidate], object]
# The gates that compare what a graph computes, the quickest first. They do not know where its weights come from.
BEHAVIOURAL_GATES: tuple[GateFunction, ...] = (
    check_structure,
    check_pool,
    check_requests,
    check_parity,
    check_metric,
)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """`deviation` is the largest difference from the reference in units of the tolerance, and counts only above 1."""

    mutant: Mutant
    deviation: float
    refused_at_load: bool
    refused_by_behaviour: bool
    refused_at_export: bool

    @property
    def is_equivalent(self) -> bool:
        return self.deviation <= 1


@dataclass(frozen=True, kw_only=True)
class Assessor:
    """Assesses mutants of one candidate. `probes` are inputs of another seed than the goldens."""

    candidate: Candidate
    bundle: Bundle
    probes: tuple[GoldenCase, ...]

    def assess(self, mutant: Mutant) -> Assessment:
        """Measure the deviation, then replay what the bundle holds, then run the gates."""
        changed = mutant.apply(self.candidate)
        deviation = self._deviation(changed)
        at_load = deviation > 1 and self._is_refused_at_load(changed)
        # The goldens are part of the pool of export, so the graphs that they refuse, export refuses.
        by_behaviour = (at_load and changed.model != self.candidate.model) or (
            deviation > 1 and is_refused(changed, BEHAVIOURAL_GATES)
        )
        return Assessment(
            mutant=mutant,
            deviation=deviation,
            refused_at_load=at_load,
            refused_by_behaviour=by_behaviour,
            refused_at_export=by_behaviour or (deviation > 1 and is_refused(changed, (_prove,))),
        )

    def _deviation(self, changed: Candidate) -> float:
        if changed.model != self.candidate.model:
            cases = (*self.bundle.golden, *self.probes)
            return float(measure_ratios(changed, cases).to_tolerance.max())
        if changed.tokenizer != self.candidate.tokenizer:
            return 0.0 if _encodes_alike(self.candidate, changed) else float("inf")
        return 0.0 if changed.manifest == self.candidate.manifest else float("inf")

    def _is_refused_at_load(self, changed: Candidate) -> bool:
        try:
            read_tokenizer(replace(self.bundle, manifest=changed.manifest, tokenizer=changed.tokenizer))
            replay_cases(changed.session, dict(enumerate(self.bundle.golden)))
            replay_requests(candidate_model(changed), self.bundle.requests)
        # A tokenizer that cannot be parsed raises a bare Exception.
        except Exception:  # noqa: BLE001
            return True
        return False


def is_refused(changed: Candidate, gates: Sequence[GateFunction]) -> bool:
    """Whether one of the gates refuses the candidate."""
    try:
        for gate in gates:
            gate(changed)
    except ExportError:
        return True
    return False


def _prove(changed: Candidate) -> None:
    prove(changed, lambda _: None)


def _encodes_alike(first: Candidate, second: Candidate) -> bool:
    """Whether two tokenizers give the same ids for the texts of the test split and for every token."""
    try:
        tokenizers = [Tokenizer.from_str(candidate.tokenizer or "") for candidate in (first, second)]
    except Exception:  # noqa: BLE001 - tokenizers raises bare Exception
        return False
    texts = [*first.source.examples.texts, *tokenizers[0].get_vocab(), "\u00e9\u4e16 \U0001f600"]
    encoded = [[encoding.ids for encoding in tokenizer.encode_batch(texts)] for tokenizer in tokenizers]
    return encoded[0] == encoded[1]


def new_assessor(name: str, *, runs: Path, bundles: Path, seed: int) -> Assessor:
    """The assessor of the current version of a bundle of a run. Raises BundleError, RunError."""
    folder = bundles / name
    bundle = open_bundle(folder / current_version(folder))
    if bundle.manifest.provenance.recipe in WAYS:
        command = bundle.manifest.provenance.recipe
        raise ValueError(f"{folder} came from elsewhere: add the words of its export, {command} MODEL ...")
    return source_assessor(run_source(load_run(runs / name)), bundle, seed=seed)


def source_assessor(source: Source, bundle: Bundle, *, seed: int) -> Assessor:
    """The assessor of a bundle of any source."""
    candidate = Candidate(source=source, model=bundle.model, manifest=bundle.manifest, tokenizer=bundle.tokenizer)
    pool = draw_pool(candidate, seed=seed)
    probes, _ = reference_cases(candidate, (*pool.mandatory, *pool.optional))
    return Assessor(candidate=candidate, bundle=bundle, probes=probes)


def assess_mutants(assessor: Assessor, *, count: int, seed: int) -> Iterator[Assessment]:
    """Draw mutants and assess each of them."""
    return (assessor.assess(mutant) for mutant in draw_mutants(assessor.candidate, count=count, seed=seed))


def table(assessments: Sequence[Assessment]) -> str:
    """A Markdown table by kind, and the mutants that export accepts."""
    lines = ["| kind | mutants | equivalent | refused at export | by behaviour alone | at load |", f"|{' --- |' * 6}"]
    kinds = sorted({assessment.mutant.kind for assessment in assessments})
    for kind in (*kinds, "all"):
        members = [assessment for assessment in assessments if kind in {assessment.mutant.kind, "all"}]
        different = [assessment for assessment in members if not assessment.is_equivalent]
        at_export = sum(assessment.refused_at_export for assessment in different)
        by_behaviour = sum(assessment.refused_by_behaviour for assessment in different)
        at_load = sum(assessment.refused_at_load for assessment in different)
        num_equivalent = len(members) - len(different)
        refused = f"{at_export} of {len(different)} | {by_behaviour} | {at_load}"
        lines.append(f"| {kind} | {len(members)} | {num_equivalent} | {refused} |")
    for assessment in assessments:
        refusals = {"export": assessment.refused_at_export, "load": assessment.refused_at_load}
        accepted = [place for place, is_refused_there in refusals.items() if not is_refused_there]
        if accepted and not assessment.is_equivalent:
            size = f"{assessment.deviation:.3g} times the tolerance"
            lines.append(f"- accepted at {' and '.join(accepted)}: {assessment.mutant}; {size}")
    return "\n".join(lines)


def is_passed(assessments: Sequence[Assessment]) -> bool:
    """Whether export refuses every structured mutant and nearly all single weights."""
    different = [assessment for assessment in assessments if not assessment.is_equivalent]
    missed = [assessment for assessment in different if not assessment.refused_at_export]
    num_single = sum(assessment.mutant.kind == SINGLE_WEIGHT for assessment in different)
    if any(assessment.mutant.is_structured for assessment in missed):
        return False
    return len(missed) <= MAX_MISSED_SHARE * num_single


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 the gates suffice, 1 they accept too many mutants, 2 no such bundle or run."""
    parser = argparse.ArgumentParser(prog="python -m export.mutate", description="Measure the mutation score.")
    parser.add_argument("model", type=Path, help="a bundle or a run, such as bundles/mnist-cnn")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mutants and of the probes (default: 1)")
    parser.add_argument("--mutants", type=int, default=150, help="number of mutants (default: 150)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are (default: runs)")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="where bundles are (default: bundles)")
    words, command, source_options = parse_source(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    name, folder = options.model.name, options.bundles / options.model.name
    try:
        if command:
            bundle = open_bundle(folder / current_version(folder))
            assessor = source_assessor(load(command, source_options).source, bundle, seed=options.seed)
        else:
            assessor = new_assessor(name, runs=options.runs, bundles=options.bundles, seed=options.seed)
    except (BundleError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    assessments = list(assess_mutants(assessor, count=options.mutants, seed=options.seed))
    print(table(assessments))
    return 0 if is_passed(assessments) else 1


if __name__ == "__main__":
    raise SystemExit(main())
