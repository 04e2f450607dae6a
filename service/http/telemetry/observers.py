"""The observers that the settings and the environment ask for; without any, a request costs nothing of them."""

import logging
import os
from pathlib import Path

from service.http.telemetry.access_log import AccessLog
from service.http.telemetry.capture.capture import Capture
from service.http.telemetry.capture.files import ParquetFiles, has_parquet
from service.http.telemetry.observation import Observer
from service.http.telemetry.spans import open_spans
from service.http.wire.messages import Network

log = logging.getLogger(__name__)


def open_observers(
    *,
    access_log: float,
    trusted_proxies: tuple[Network, ...],
    capture: str,
    capture_rate: float,
    capture_fields: frozenset[str],
    capture_bytes: int,
) -> tuple[Observer, ...]:
    """Start what observes the requests of this process; what cannot start leaves one line in the log."""
    observers: list[Observer] = []
    # First of all, because the others write the trace that it finds.
    if (spans := open_spans(os.environ)) is not None:
        observers.append(spans)
    if access_log:
        observers.append(AccessLog(access_log, trusted_proxies))
    if capture and not has_parquet():
        log.error("no requests are captured: EKIBEN_CAPTURE is set, but the dependency group `batch` is not installed")
    elif capture:
        try:
            files = ParquetFiles(Path(capture), max_bytes=capture_bytes)
        except OSError as error:
            log.error("no requests are captured: EKIBEN_CAPTURE=%s: %s", capture, error.strerror or error)
        else:
            observers.append(Capture(files, rate=capture_rate, fields=capture_fields))
    return tuple(observers)
