"""Canary and shadow: a candidate answers a share of the requests, and both versions answer another, to be compared.

Invariant: a client gets one whole answer of one version, which names it, and waits for no comparison. A request that
the candidate fails or refuses, or that names a version, is left to the version that serves its model.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from service.engine.context import RequestContext
from service.engine.process.shortage import is_out_of_memory
from service.engine.repository.repository import Repository
from service.engine.rollout.tally import Outcome, Tally
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.body_budget import BodyBudget
from service.http.rollout.comparison import first_difference
from service.http.route import ServiceState
from service.http.telemetry.multiprocess import MultiprocessMetrics
from service.http.telemetry.request_metrics import RequestMetrics
from service.http.wire.messages import ClientDisconnectedError, Network, StreamedResponse

# Requests that are being compared at a time; others are skipped, so that comparing takes little memory.
MAX_COMPARISONS = 4
# Errors that say nothing of a version; with the first two, nothing was computed.
REFUSALS = frozenset({"overloaded", "not-ready"})
PASSING = REFUSALS | {"timeout", "rate-limited"}

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Inference(Generic[Answer]):
    """A request of a client, over HTTP or gRPC. `content` gives what is compared of an answer that is no stream.

    A request that names a version takes no part in the rollout.
    """

    route: str
    request_id: str
    names_version: bool
    handle: Callable[[ServiceState, RequestContext], Awaitable[Answer]]
    content: Callable[[Any], Any]


class Failure(NamedTuple):
    """What is kept of an error: its traceback would keep the request in memory."""

    what: str
    is_logged: bool


@dataclass(kw_only=True)
class View:
    """The state of the service with another repository."""

    repository: Repository
    runner: Runner
    max_body_bytes: int
    bodies: BodyBudget
    trusted_proxies: tuple[Network, ...]
    draining: bool
    has_playground: bool
    closing: bool
    request_metrics: RequestMetrics
    multiprocess_metrics: MultiprocessMetrics | None


class Rollout:
    """`canary` and `shadow` are shares of the requests for models with a candidate."""

    def __init__(self, *, canary: float, shadow: float, tolerance: float) -> None:
        self._canary, self._shadow, self._tolerance = canary, shadow, tolerance
        self._comparisons: set[asyncio.Task[None]] = set()
        self._random = random.Random()  # noqa: S311 - a sample

    async def answer(self, state: ServiceState, inference: Inference[Answer], context: RequestContext) -> Answer:
        """Answer a request with one of the versions, and perhaps begin to compare with the other."""
        if inference.names_version:
            return await inference.handle(state, context)
        failure: Failure | None = None
        if state.repository.has_candidates and self._random.random() < self._canary:
            try:
                answer = await _ask_candidate(state, inference, context)
            except Exception as error:
                if not _is_refusal(error):
                    failure = self._failure_of_candidate(state, inference, context, error)
                    if failure is None:
                        raise
                answer = await inference.handle(state, context)
        else:
            answer = await inference.handle(state, context)
        if isinstance(answer, StreamedResponse) or (tally := self._tally(state, context)) is None:
            return answer
        if failure is not None:
            _count_failure(tally, inference, failure)
        elif state.runner.admission.expects_retries:
            tally.add("skipped")
        else:
            is_canary = context.version == tally.candidate
            self._start(tally, self._compare(state, inference, answer, tally, is_canary=is_canary))
        return answer

    def _failure_of_candidate(
        self, state: ServiceState, inference: Inference[Answer], context: RequestContext, error: Exception
    ) -> Failure | None:
        """Return what the candidate failed with, or None if the serving version is not to be asked."""
        versions = state.repository.compared_versions(context.model)
        if versions is None or versions[1].manifest.version != context.version:
            return None
        if isinstance(error, EkibenError) and error.slug == "timeout" and (tally := self._tally(state, context)):
            self._start(tally, self._check_timeout(state, inference, tally, context.timeout_s))
        return None if _is_passing(error) else _describe_failure(error, context, inference)

    def _tally(self, state: ServiceState, context: RequestContext) -> Tally | None:
        """The tally of a request that is to be compared, or None."""
        if not context.model or self._random.random() >= self._shadow:
            return None
        versions = state.repository.compared_versions(context.model)
        if versions is None or versions[0].manifest.task == "generate":
            return None
        tally = state.repository.tally(*versions)
        tally.share()
        return tally if tally.decision == "undecided" else None

    def _start(self, tally: Tally, comparison: Coroutine[Any, Any, None]) -> None:
        """Run the comparison in the background, unless too many run."""
        if len(self._comparisons) >= MAX_COMPARISONS:
            comparison.close()
            tally.add("skipped")
        else:
            self._comparisons.add(task := asyncio.create_task(comparison))
            task.add_done_callback(self._comparisons.discard)

    async def _check_timeout(
        self, state: ServiceState, inference: Inference[Answer], tally: Tally, timeout_s: float
    ) -> None:
        """Count a deadline that the candidate missed as its failure, if the serving version would have kept it."""
        context = state.runner.new_context(timeout_s=timeout_s, route=inference.route)
        try:
            await inference.handle(state, context)
            was_kept = context.version == tally.serving
        except Exception:  # noqa: BLE001 - it says nothing of the candidate
            was_kept = False
        what = f"timeout: no answer within {timeout_s:g} s" if was_kept else ""
        return _count(tally, "failed" if was_kept else "skipped", inference, what)

    async def _compare(
        self, state: ServiceState, inference: Inference[Answer], answer: Answer, tally: Tally, *, is_canary: bool
    ) -> None:
        """Have the other version answer too, after the requests of clients, and count whether the answers differ."""
        context = state.runner.new_context(timeout_s=2 * state.runner.limits.timeout_s, route=inference.route)
        expected = tally.serving if is_canary else tally.candidate
        try:
            other = await inference.handle(state if is_canary else _with_candidates(state), context)
        except Exception as error:  # noqa: BLE001 - logged
            failure = _describe_failure(error, context, inference)
            if is_canary or _is_passing(error) or context.version != expected:
                return _count(tally, "skipped", inference, "")
            return _count_failure(tally, inference, failure)
        if context.version != expected or isinstance(other, StreamedResponse):
            return _count(tally, "skipped", inference, "")
        answers = (other, answer) if is_canary else (answer, other)
        try:
            outcome, what = await asyncio.to_thread(self._outcome, inference, *answers)
        except Exception:
            log.exception("%s: the answers to request %s could not be compared", tally.name, inference.request_id)
            return _count(tally, "skipped", inference, "")
        return _count(tally, outcome, inference, what)

    def _outcome(self, inference: Inference[Any], serving: Any, candidate: Any) -> tuple[Outcome, str]:
        """Return how two answers compare, and what differs. Raises if that of the serving version cannot be read."""
        expected = inference.content(serving)
        try:
            found = inference.content(candidate)
        except Exception as error:  # noqa: BLE001 - the reason is counted
            return "failed", f"its answer cannot be read: {type(error).__name__}: {error}"
        difference = first_difference(expected, found, self._tolerance)
        return ("same", "") if difference is None else ("different", difference)


async def _ask_candidate(state: ServiceState, inference: Inference[Answer], context: RequestContext) -> Answer:
    """Have the candidate answer. If it refuses, no time is reserved for the client to return: it may not need to."""
    client, context.client = context.client, ""
    try:
        return await inference.handle(_with_candidates(state), context)
    finally:
        context.client = client


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, EkibenError) and error.slug in REFUSALS


def _is_passing(error: Exception) -> bool:
    """Whether an error says nothing of the version that was asked."""
    if isinstance(error, EkibenError):
        return error.slug in PASSING
    return isinstance(error, ClientDisconnectedError) or is_out_of_memory(error)


def _describe_failure(error: Exception, context: RequestContext, inference: Inference[Any]) -> Failure:
    """Say what a version failed with; an unforeseen error is logged with its traceback."""
    if isinstance(error, EkibenError):
        return Failure(f"{error.slug}: {error.detail}", is_logged=False)
    model, version, request_id = context.model, context.version, inference.request_id
    log.error("%s: version %s failed request %s", model, version, request_id, exc_info=error)
    return Failure(f"internal: {type(error).__name__}", is_logged=True)


def _with_candidates(state: ServiceState) -> View:
    return View(
        repository=state.repository.with_candidates(),
        runner=state.runner,
        max_body_bytes=state.max_body_bytes,
        bodies=state.bodies,
        trusted_proxies=state.trusted_proxies,
        draining=state.draining,
        has_playground=state.has_playground,
        closing=state.closing,
        request_metrics=state.request_metrics,
        multiprocess_metrics=state.multiprocess_metrics,
    )


def _count_failure(tally: Tally, inference: Inference[Any], failure: Failure) -> None:
    """Count a request that the candidate failed."""
    if failure.is_logged:
        tally.add("failed", f"request {inference.request_id}: {failure.what}")
    else:
        _count(tally, "failed", inference, failure.what)


def _count(tally: Tally, outcome: Outcome, inference: Inference[Any], what: str) -> None:
    """Count a comparison; the log names what differs."""
    example = "" if outcome in {"same", "skipped"} else f"request {inference.request_id}: {what}"
    if tally.add(outcome, example):
        log.warning("%s: candidate %s against %s: %s", tally.name, tally.candidate, tally.serving, example)
