"""The proof of a candidate: all gates in order, and what each of them measured."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from export.candidate import Candidate
from export.gates.batch_invariance import Certificate, certify
from export.gates.coverage.comparison import Coverage
from export.gates.golden.gate import Goldens, choose_goldens
from export.gates.manifest import check_manifest
from export.gates.metric import check_metric
from export.gates.parity import Parity, check_parity
from export.gates.precision import check_precision
from export.gates.requests.gate import check_requests
from export.gates.structure import check_structure
from export.gates.vocabulary.gate import check_vocabulary
from export.gates.weights.gate import Weights, check_weights
from service.bundle import GoldenCase, RequestCase, TokenCase
from service.contract.precision import Precision

# Called with the name of each stage before it starts.
ReportStage = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The results of all gates. `metric` maps a score to its value in the reference and in the graph.

    `weights` is None if the graph came as a file, so that no module says which weights belong where.

    `precision` is what a variant loses against its parent, None for other models.

    `coverages` says what was compared element by element, beside the grid of parity.
    """

    operators: dict[str, int]
    tokens: tuple[TokenCase, ...]
    weights: Weights | None
    precision: Precision | None
    parity: Parity
    coverages: tuple[Coverage, ...]
    metric: dict[str, tuple[float, float]]
    certificate: Certificate
    requests: tuple[RequestCase, ...]
    goldens: Goldens

    @property
    def golden(self) -> tuple[GoldenCase, ...]:
        """The cases of `golden.safetensors`."""
        return self.goldens.cases


def prove(candidate: Candidate, report: ReportStage) -> Proof:
    """Run every gate. Raises ExportError at the first one that refuses the candidate."""
    report("structure")
    operators = check_structure(candidate)
    report("vocabulary")
    tokens = check_vocabulary(candidate)
    check_manifest(candidate)
    report("weights")
    weights = None if candidate.source.module is None else check_weights(candidate)
    precision = check_precision(candidate)
    report("parity")
    parity = check_parity(candidate)
    report("metric")
    # From here on, numbers are drawn within the domain that parity has shown.
    candidate = replace(candidate, manifest=candidate.manifest.model_copy(update={"domain": dict(parity.domain)}))
    metric = check_metric(candidate)
    report("goldens")
    goldens = choose_goldens(candidate)
    report("invariance")
    certificate = certify(candidate, goldens.cases)
    report("requests")
    requests = check_requests(candidate.with_invariance(certificate.invariance))
    return Proof(
        operators=operators,
        tokens=tokens,
        weights=weights,
        precision=precision,
        parity=parity,
        coverages=(*parity.coverages, metric.coverage),
        metric=metric.scores,
        certificate=certificate,
        requests=requests,
        goldens=goldens,
    )
