"""All gates in order, on one candidate."""

from collections.abc import Callable
from dataclasses import dataclass

from export.candidate import Candidate
from export.certify import Certificate, certify
from export.golden import golden_cases
from export.metric import check_metric
from export.parity import Parity, check_parity
from export.requests import check_requests
from export.structure import check_structure
from service.bundle import GoldenCase, RequestCase

Report = Callable[[str], None]  # told the name of the gate under way


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What each gate measured."""

    operators: dict[str, int]
    parity: Parity
    metric: dict[str, tuple[float, float]]  # score -> (of PyTorch, of the graph)
    certificate: Certificate
    requests: tuple[RequestCase, ...]
    golden: tuple[GoldenCase, ...]


def prove(candidate: Candidate, report: Report) -> Proof:
    """Raises ExportError at the first gate that the candidate fails."""

    def gate(name: str) -> Candidate:
        report(name)
        return candidate

    operators = check_structure(gate("structure"))
    parity = check_parity(gate("parity"))
    metric = check_metric(gate("metric"))
    golden = golden_cases(gate("goldens"))
    certificate = certify(gate("invariance"), golden)
    served = gate("requests").with_invariance(certificate.invariance)
    return Proof(
        operators=operators,
        parity=parity,
        metric=metric,
        certificate=certificate,
        requests=check_requests(served),
        golden=golden,
    )
