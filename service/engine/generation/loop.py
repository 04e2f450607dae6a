"""The decode loop of one language model: all its requests share steps, which take turns with other work of the device.

A step is a series of runs of the graph; each run is a quantum of the executor, so that batches of other models pass
between them. Whatever goes wrong with one row ends that row only.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from service.contract.heads import LanguageModelHead
from service.engine.generation.events import FinishReason
from service.engine.generation.logits import Logits, NotFiniteLogitsError
from service.engine.generation.prefix_cache import PrefixCache, read_chunk
from service.engine.generation.sampler import TokenLogprob
from service.engine.generation.scheduler import DecodeBatch, Scheduler
from service.engine.generation.sequence import RowStatus, SequenceState, sample_next
from service.engine.generation.stream import Delivery, deliver_all
from service.engine.limits import Limits
from service.engine.metrics import GenerationCounters
from service.engine.process.shortage import is_out_of_memory
from service.engine.sessions.device import Device
from service.errors import EkibenError, as_exception, lacks_memory, not_finite_item
from service.manifest import Manifest

# A quantum that has waited this long goes before all other work.
INTER_TOKEN_TARGET_S = 0.02
# A stream that gets tokens faster than this has several in one event, but never waits for its first one.
STREAM_INTERVAL_S = 0.01

log = logging.getLogger(__name__)


class DecodeLoop:
    """`submit` may be called from any thread; the executor calls `run` and `fail`, never two at the same time."""

    def __init__(
        self, manifest: Manifest, limits: Limits, counters: GenerationCounters, device: Device = "cpu"
    ) -> None:
        head, context = manifest.head, manifest.limits.max_steps
        assert isinstance(head, LanguageModelHead)
        assert context is not None, "a language model has limits.max_steps, its context"
        self._version = f"{manifest.name}/{manifest.version}"
        self._counters = counters
        counters.max_kv_cache_bytes = limits.kv_cache_bytes
        self._prefixes = PrefixCache(limits.prefix_cache_bytes)
        self._scheduler = Scheduler(
            head, context, max_rows=limits.max_generations, max_bytes=limits.kv_cache_bytes, device=device
        )
        self._quanta: deque[DecodeBatch | SequenceState] = deque()  # what is left of the step
        self._lock = threading.Lock()
        self._arrivals: list[SequenceState] = []
        self._is_active = False
        self._deliveries: list[Delivery] = []
        self.durations_s: deque[float] = deque(maxlen=64)  # of recent rows, from their start to their end
        self.due = 0.0  # on the clock of `time.monotonic`

    @property
    def num_rows(self) -> int:
        """Rows that are generated or wait."""
        return len(self._arrivals) + len(self._scheduler.waiting) + self._scheduler.num_running

    def submit(self, rows: Sequence[SequenceState]) -> bool:
        """Add rows; returns true if the executor has to be told that there is work."""
        with self._lock:
            self._arrivals += rows
            was_active, self._is_active = self._is_active, True
            self.due = self.due if was_active else time.monotonic() + INTER_TOKEN_TARGET_S
            return not was_active

    def run(self) -> bool:
        """Compute one quantum; returns whether more work is left."""
        try:
            if not self._quanta:
                self._begin_step()
            if self._quanta:
                self._compute(self._quanta.popleft())
        except Exception as error:
            log.exception("%s: a step of the decode loop failed", self._version)
            self._end_all(self._failure(error))
        self._counters.running, self._counters.waiting = self._scheduler.num_running, len(self._scheduler.waiting)
        self._counters.kv_cache_bytes = self._scheduler.reserved_bytes
        self._flush()
        with self._lock:
            self._is_active = bool(self._arrivals or self._scheduler.waiting or self._scheduler.num_running)
            self.due = time.monotonic() + INTER_TOKEN_TARGET_S
            return self._is_active

    def fail(self, error: EkibenError) -> None:
        """End every row with this error."""
        with self._lock:
            self._scheduler.add(self._arrivals)
            self._arrivals, self._is_active = [], False
        self._end_all(error)
        self._flush()

    def _begin_step(self) -> None:
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
        self._scheduler.add(arrivals)
        if num_cancelled := self._scheduler.drop_cancelled():
            self._counters.finished["abort"] += num_cancelled
        self._quanta.extend(self._scheduler.plan())

    def _compute(self, work: DecodeBatch | SequenceState) -> None:
        if isinstance(work, DecodeBatch):
            self._decode(work)
            return
        try:
            self._prefill(work)
        except Exception as error:  # noqa: BLE001 - every error of a prompt belongs to its row
            self._end(work, error=self._failure(error))

    def _prefill(self, row: SequenceState) -> None:
        """Read a chunk of the prompt; after the last, sample the first token."""
        if row.status is not RowStatus.PREFILLING or row.is_cancelled:
            return  # chunks of an earlier prompt made this run needless
        row.cache = row.cache or self._scheduler.new_cache()
        logits_SV = read_chunk(row, row.cache, self._prefixes, self._counters)
        if row.cache.length < row.prompt.size:
            return
        if row.end == row.prompt.size:
            self._end(row, reason="length")
            return
        self._sample([row], logits_SV[-1:])
        if row.status is RowStatus.PREFILLING:
            self._scheduler.start_decoding(row)

    def _decode(self, batch: DecodeBatch) -> None:
        rows = list(batch.rows)
        if not rows:
            return
        try:
            logits_BV = batch.cache.step(rows[0].session, [row.last_token for row in rows])
        except Exception as error:  # noqa: BLE001 - it may belong to one row
            if len(rows) == 1:
                self._end(rows[0], error=self._failure(error))
            else:
                self._scheduler.isolate(batch)
            return
        self._counters.decode_runs += 1
        self._counters.decode_rows += len(rows)
        self._sample(rows, logits_BV)
        self._scheduler.move_grown(batch)

    def _sample(self, rows: Sequence[SequenceState], logits_BV: Logits) -> None:
        """Sample one token for each row, and end the rows that are complete or that fail."""
        tokens = sample_next(rows, logits_BV)
        now = time.monotonic()
        for row, token in zip(rows, tokens, strict=True):
            if isinstance(token, Exception):
                self._end(row, error=self._failure(token))
                continue
            self._counters.generated_tokens += 1
            latency = self._counters.inter_token_s if row.detokenizer.ids else self._counters.first_token_s
            latency.add(now - row.last_token_at)
            row.last_token_at = now
            self._append(row, token, now)

    def _append(self, row: SequenceState, token: TokenLogprob, now: float) -> None:
        try:
            reason = row.append(token)
        except BaseException as error:  # noqa: BLE001 - a panic of the tokenizer's library is no Exception
            self._end(row, error=self._failure(as_exception(error)))
            return
        if reason is not None:
            self._end(row, reason=reason)
        elif row.sink.is_streamed and row.has_text and now >= row.next_event_at:
            row.next_event_at = now + STREAM_INTERVAL_S
            self._deliver(row)

    def _end(self, row: SequenceState, *, reason: FinishReason | None = None, error: EkibenError | None = None) -> None:
        self._scheduler.remove(row, clear=error is not None and error.slug == "not-finite")
        self._report_end(row, reason, error)

    def _end_all(self, error: EkibenError) -> None:
        self._quanta.clear()
        running, waiting = self._scheduler.clear()
        for row in running:
            self._report_end(row, None, error)
        for row in waiting:
            self._deliver(row, error=error)

    def _report_end(self, row: SequenceState, reason: FinishReason | None, error: EkibenError | None) -> None:
        self.durations_s.append(time.monotonic() - row.started_at)
        self._counters.finished[reason or (error.slug if error else "abort")] += 1
        self._deliver(row, reason, error)

    def _deliver(
        self, row: SequenceState, reason: FinishReason | None = None, error: EkibenError | None = None
    ) -> None:
        self._deliveries.append((row.sink, row.take_event(reason, error)))

    def _flush(self) -> None:
        if self._deliveries:
            deliver_all(self._deliveries)
            self._deliveries = []

    def _failure(self, error: Exception) -> EkibenError:
        if isinstance(error, NotFiniteLogitsError):
            return EkibenError("not-finite", f"{self._version}: {not_finite_item('logits')}")
        if is_out_of_memory(error):
            return lacks_memory(self._version)
        return EkibenError("internal", f"{self._version}: generation failed: {error}")
