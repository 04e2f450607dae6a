"""Liveness and readiness: a live process answers; a ready service would answer an inference request correctly now."""

from service.errors import EkibenError
from service.http.route import ReadRoute, ServiceState
from service.http.wire.errors import oip_error_response
from service.http.wire.messages import JSON, HttpRequest, Response


async def _live(_: ServiceState, __: HttpRequest) -> Response:
    return Response(JSON, b'{"live":true}')


async def _ready(state: ServiceState, _: HttpRequest) -> Response:
    reason = "the service is shutting down" if state.draining else state.repository.not_ready_reason()
    if reason is not None:
        raise EkibenError("not-ready", reason)
    return Response(JSON, b'{"ready":true}')


ROUTES = (
    ReadRoute(name="/livez", handle=_live, scope=None),
    ReadRoute(name="/healthz", handle=_live, scope=None),
    ReadRoute(name="/readyz", handle=_ready, scope=None),
    ReadRoute(name="/v2/health/live", handle=_live, scope=None, error_format=oip_error_response),
    ReadRoute(name="/v2/health/ready", handle=_ready, scope=None, error_format=oip_error_response),
)
