"""Probes: alive means that this process answers, ready that it would answer a request with a right answer now."""

from service.errors import EkibenError
from service.http.exchange import JSON, Reply, Request
from service.http.route import Host, Page, in_oip

LIVE = Reply(JSON, b'{"live":true}')
READY = Reply(JSON, b'{"ready":true}')


async def _live(_: Host, __: Request) -> Reply:
    return LIVE


async def _ready(host: Host, _: Request) -> Reply:
    reason = "the service is shutting down" if host.draining else host.repository.not_ready_reason()
    if reason is not None:
        raise EkibenError("not-ready", reason)
    return READY


ROUTES = (
    Page(name="/livez", answer=_live),
    Page(name="/healthz", answer=_live),
    Page(name="/readyz", answer=_ready),
    Page(name="/v2/health/live", answer=_live, dialect=in_oip),
    Page(name="/v2/health/ready", answer=_ready, dialect=in_oip),
)
