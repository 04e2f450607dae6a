"""The gate of golden cases: what the service replays before a model is ready, chosen by the mutants that it reveals.

The graph must reproduce the whole pool within the rounding errors of float32, which is stricter than the tolerance.
Then rows are chosen from the pool, and the score of the choice is measured: how many of the mutants that differ by more
than the tolerance are refused by the pool, and how many by the chosen cases.

Shapes: M mutants, R rows of the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.cases import Array
from export.gates.golden.choice import choose_rows, regroup
from export.gates.golden.pool import draw_pool, max_pool_bytes, num_rows, row_bytes
from export.gates.golden.ratios import measure_ratios
from export.gates.golden.reference import reference_cases, rounding_of_graph
from export.gates.inputs.effort import max_rows
from export.gates.inputs.sizes import smallest_sizes
from export.mutation.corpus import draw_graph_mutants
from service.bundle import GoldenCase
from service.contract.heads import LanguageModelHead
from service.engine.verification.parity import replay_cases
from service.errors import BundleError
from service.manifest import MutationScore

SEED = 2
# A language model has few rows to choose from, and its mutants take longer; so do those of a model that takes long.
NUM_MUTANTS, NUM_LANGUAGE_MUTANTS, NUM_HEAVY_MUTANTS = 120, 40, 24
HEAVY_ROWS = 2000
MAX_CHOSEN_BYTES, MIN_CHOSEN_ROWS = 500_000, 24
MAX_ROUNDING = 0.01  # of the manifest; a model with larger rounding errors is held to its tolerance


@dataclass(frozen=True, kw_only=True)
class Goldens:
    """The golden cases, the rounding error of each float output on them, and the mutants that they kill.

    `num_drawn` mutants were tried, of which `score` counts those that differ.
    """

    cases: tuple[GoldenCase, ...]
    rounding: dict[str, float]
    score: MutationScore
    num_drawn: int


def choose_goldens(candidate: Candidate) -> Goldens:
    """Check the graph on the pool and choose the golden cases. Raises ExportError."""
    mandatory, optional, rounding = check_pool(candidate)
    cases, candidate = (*mandatory, *optional), with_rounding(candidate, rounding)
    limits_MR, tolerances_MR = _mutant_ratios(candidate, cases, len(mandatory))
    first = sum(num_rows(case.inputs) for case in mandatory)
    sizes_R = np.array([_case_row_bytes(case) for case in optional for _ in range(num_rows(case.inputs))])
    chosen = choose_rows(
        limits_MR[:, first:],
        sizes_R,
        max_bytes=max_pool_bytes(candidate, MAX_CHOSEN_BYTES, MIN_CHOSEN_ROWS),
        mandatory_M=limits_MR[:, :first].max(1, initial=0.0),
    )
    loaded_M = limits_MR[:, [*range(first), *(first + row for row in chosen)]].max(1)
    is_different_M = tolerances_MR.max(1) > 1
    score = MutationScore(
        mutants=int(is_different_M.sum()),
        killed_at_export=int((is_different_M & (limits_MR.max(1) > 1)).sum()),
        killed_at_load=int((is_different_M & (loaded_M > 1)).sum()),
        seed=SEED,
    )
    regrouped = regroup(optional, chosen, candidate.manifest.limits.max_items)
    return Goldens(cases=(*mandatory, *regrouped), rounding=rounding, score=score, num_drawn=len(limits_MR))


def check_pool(candidate: Candidate) -> tuple[tuple[GoldenCase, ...], tuple[GoldenCase, ...], dict[str, float]]:
    """Compare the graph with its reference on the pool, as strictly as the service replays goldens. Raises ExportError.

    Return the mandatory cases, the others, and the rounding errors of each output.
    """
    pool = draw_pool(candidate, seed=SEED)
    mandatory, rounding = reference_cases(candidate, pool.mandatory)
    optional, other_rounding = reference_cases(candidate, pool.optional)
    rounding = {name: max(rounding.get(name, 0.0), error) for name, error in (other_rounding or rounding).items()}
    try:
        if candidate.source.predict_float64 is None:
            rounding = rounding_of_graph(candidate, (*mandatory, *optional))
        replay_cases(with_rounding(candidate, rounding).session, dict(enumerate((*mandatory, *optional))))
    except (BundleError, ValueError, RuntimeError) as error:
        raise ExportError("goldens", str(error)) from error
    return mandatory, optional, rounding


def with_rounding(candidate: Candidate, rounding: dict[str, float]) -> Candidate:
    """The candidate with the rounding errors of its outputs in the manifest."""
    tolerance = {
        name: tolerance.model_copy(
            update={"rounding": min(max(rounding[name], candidate.source.min_rounding), MAX_ROUNDING)}
        )
        if name in rounding
        else tolerance
        for name, tolerance in candidate.manifest.tolerance.items()
    }
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"tolerance": tolerance}))


def _num_mutants(candidate: Candidate) -> int:
    if isinstance(candidate.manifest.head, LanguageModelHead):
        return NUM_LANGUAGE_MUTANTS
    is_heavy = max_rows(candidate, smallest_sizes(candidate.manifest)) < HEAVY_ROWS
    return NUM_HEAVY_MUTANTS if is_heavy else NUM_MUTANTS


def _case_row_bytes(case: GoldenCase) -> int:
    return row_bytes(case.inputs) + row_bytes(case.outputs)


def _mutant_ratios(candidate: Candidate, cases: Sequence[GoldenCase], num_mandatory: int) -> tuple[Array, Array]:
    """The ratios of each mutant on each row, to the limits of the replay and to the tolerance."""
    mutants = draw_graph_mutants(candidate, count=_num_mutants(candidate), seed=SEED)
    ratios = [measure_ratios(mutant.apply(candidate), cases, num_mandatory=num_mandatory) for mutant in mutants]
    if not ratios:
        # Of a graph without stored numbers and known operators, no mutant is made.
        none = np.zeros((0, sum(num_rows(case.inputs) for case in cases)))
        return none, none
    return np.stack([ratio.to_limit for ratio in ratios]), np.stack([ratio.to_tolerance for ratio in ratios])
