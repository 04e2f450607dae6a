"""The part of the running service that routes read.

The framework creates the service after the routes, so the router looks it up for each request.
"""

from collections.abc import Sequence
from typing import Protocol

from service.engine.repository.repository import Repository
from service.engine.runner import Runner
from service.http.telemetry.multiprocess import MultiprocessMetrics
from service.http.telemetry.request_metrics import RequestMetrics
from service.http.wire.messages import Network


class ServiceState(Protocol):
    repository: Repository
    runner: Runner
    max_body_bytes: int
    trusted_proxies: Sequence[Network]  # whose X-Forwarded-For is believed
    draining: bool
    request_metrics: RequestMetrics
    multiprocess_metrics: MultiprocessMetrics | None  # None in a service of one worker
