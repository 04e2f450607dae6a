"""The precision gate: a variant decides what its parent in float32 decides.

All examples go through both. The variant is refused if its score is worse by more than MAX_LOSS, or if it decides
otherwise too often: a score can stay the same while answers change. Of a label, a token or a threshold the share of
equal decisions counts, of outputs that are numbers the difference, relative to how much they vary.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates.backends import Backend, reference_backend, session_backend
from export.gates.cases import Array
from export.gates.examples.example_cases import ExampleCase, example_cases
from export.gates.examples.scores import LOSS, Score
from export.source import Source
from service.bundle import Tensors
from service.contract.heads import Head, LabelsHead, LanguageModelHead, MultilabelHead, TokenLabelsHead
from service.contract.precision import INTEGERS, MAX_INTEGER_TOLERANCE, Precision

# 0.2 points of accuracy. Of a mean error, as much of it; of a loss, so many nats a token.
MAX_LOSS = 0.002
MAX_NATS = 0.02
MIN_AGREEMENT = 0.99
# A language model has hundreds of tokens that are almost as likely as the first.
MIN_TOKEN_AGREEMENT = 0.97
# The tolerance of a variant in integers, as a multiple of what was measured.
TOLERANCE_FACTOR, MIN_TOLERANCE = 4.0, 0.002
HIGHER_IS_BETTER = "accuracy"


def with_measured_tolerance(candidate: Candidate) -> Candidate:
    """The variant with the tolerance that its examples need against its reference, within the bounds of a manifest."""
    source = candidate.source
    if source.precision is None or source.precision.kind not in INTEGERS:
        return candidate
    reference, session = reference_backend(source), session_backend(candidate.session)
    largest = dict.fromkeys(candidate.manifest.tolerance, 0.0)
    for batch in example_cases(candidate):
        expected, actual = reference(batch.case), session(batch.case)
        for name in largest:
            largest[name] = max(largest[name], _distance(expected[name], actual[name]))
    atol = {
        name: min(max(TOLERANCE_FACTOR * distance, MIN_TOLERANCE), MAX_INTEGER_TOLERANCE)
        for name, distance in largest.items()
    }
    # One digit is enough for a bound.
    rounded = {name: float(f"{value:.1g}") for name, value in atol.items()}
    return build_candidate(replace(source, atol_by_output=rounded), candidate.model, candidate.data)


def check_precision(candidate: Candidate) -> Precision | None:
    """Return what the variant loses; None if the candidate is no variant. Raises ExportError."""
    precision, parent = candidate.source.precision, candidate.source.parent
    if precision is None or parent is None:
        return None
    reference, variant = reference_backend(parent), _variant_backend(candidate)
    scores = Score(candidate.source), Score(candidate.source)
    agreement = _Agreement(candidate.source)
    for batch in example_cases(candidate):
        outputs = reference(batch.case), variant(batch.case)
        agreement.add(*outputs, batch)
        for score, values in zip(scores, outputs, strict=True):
            if score.name is not None:
                score.add(values, batch)
    result = precision.model_copy(update={"items": len(candidate.source.examples), "agreement": agreement.value()})
    if scores[0].name is not None:
        before, after = (score.mean() for score in scores)
        result = result.model_copy(update={"metric": scores[0].name, "parent_score": before, "score": after})
    _check(result, candidate.source.head)
    return result


def _variant_backend(candidate: Candidate) -> Backend:
    """What computes as the variant is served: its session, but of TF32, which no CPU computes, its reference."""
    precision = candidate.source.precision
    if precision is not None and precision.kind == "tf32":
        return reference_backend(candidate.source)
    return session_backend(candidate.session)


def _check(result: Precision, head: Head) -> None:
    lost, allowed = _loss(result)
    if lost > allowed:
        raise ExportError(
            "precision",
            f"in {result.kind}, {result.metric} on {result.items} examples is {result.score:.5f} instead of "
            f"{result.parent_score:.5f}: it loses {lost:.4f}, at most {allowed:.4g} is allowed",
        )
    needed = MIN_TOKEN_AGREEMENT if isinstance(head, LanguageModelHead) else MIN_AGREEMENT
    if result.agreement < needed:
        raise ExportError(
            "precision",
            f"in {result.kind}, {result.agreement:.4f} of the answers on {result.items} examples are those of "
            f"{result.parent}, at least {needed:g} must be",
        )


def _loss(result: Precision) -> tuple[float, float]:
    """How much worse the score is, and how much worse it may be."""
    if result.metric in {"", HIGHER_IS_BETTER}:
        return result.parent_score - result.score, MAX_LOSS
    allowed = MAX_NATS if result.metric == LOSS else MAX_LOSS * abs(result.parent_score)
    return result.score - result.parent_score, allowed


@dataclass(kw_only=True)
class _Sums:
    """Of the elements of one output: their number, sum and squares, and the squares of the differences."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    differences: float = 0.0

    def add(self, expected: Array, actual: Array) -> None:
        values, others = expected.astype(np.float64), actual.astype(np.float64)
        self.count += values.size
        self.total += float(values.sum())
        self.squares += float((values**2).sum())
        self.differences += float(((others - values) ** 2).sum())

    def agreement(self) -> float:
        """1 less the root mean square of the differences, relative to the standard deviation of the values."""
        variance = self.squares - self.total**2 / max(self.count, 1)
        relative = np.sqrt(self.differences / variance) if variance > 0 else float(self.differences > 0)
        return float(max(0.0, 1.0 - relative))


@dataclass
class _Agreement:
    """The share of equal decisions; for a head that decides nothing, the least agreement of its outputs of numbers."""

    source: Source
    equal: int = 0
    decisions: int = 0
    sums: dict[str, _Sums] = field(default_factory=dict)

    def add(self, expected: Tensors, actual: Tensors, batch: ExampleCase) -> None:
        decided = [_decisions(self.source.head, outputs, batch) for outputs in (expected, actual)]
        if decided[0] is not None and decided[1] is not None:
            self.equal += int((decided[0] == decided[1]).sum())
            self.decisions += decided[0].size
            return
        for name, values in expected.items():
            if values.dtype.kind in "fiu":
                self.sums.setdefault(name, _Sums()).add(values, actual[name])

    def value(self) -> float:
        if self.decisions:
            return self.equal / self.decisions
        return min((sums.agreement() for sums in self.sums.values()), default=1.0)


def _decisions(head: Head, outputs: Tensors, batch: ExampleCase) -> Array | None:
    """The labels, tokens or chosen labels of a batch, one beside the other; None for a head that decides nothing."""
    match head:
        case LabelsHead():
            return outputs["probabilities"].argmax(-1)
        case MultilabelHead():
            return outputs["probabilities"] >= np.float32(head.threshold)
        case TokenLabelsHead() | LanguageModelHead():
            values = outputs["logits" if isinstance(head, LanguageModelHead) else "probabilities"].argmax(-1)
            return values[np.arange(values.shape[1]) < batch.case.inputs["lengths"][:, None]]
        case _:
            return None


def _distance(expected: Array, actual: Array) -> float:
    if expected.dtype.kind != "f" or expected.shape != actual.shape:
        return 0.0
    return float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0))
