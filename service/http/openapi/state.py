"""The routes that report on the service: probes, metrics, this document, the playground."""

from collections.abc import Mapping

from service.http.openapi.operation import Operation
from service.http.openapi.schemas import TEXT, Schema, array, record
from service.http.wire.messages import JSON

TAG = "Service"
LIVE: Schema = record({"live": {"const": True}})
READY: Schema = record({"ready": {"const": True}})
DOCUMENT: Schema = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components"],
    "properties": {"openapi": {"const": "3.1.0"}},
}


def _live(summary: str) -> Operation:
    return Operation(tag=TAG, summary=summary, answer={JSON: LIVE})


def _ready(summary: str) -> Operation:
    return Operation(tag=TAG, summary=summary, answer={JSON: READY}, errors=("not-ready",))


def _page(summary: str) -> Operation:
    return Operation(
        tag=TAG, summary=summary, answer={"text/html": TEXT}, errors=("unknown-route",), has_entity_tag=True
    )


def _document(summary: str) -> Operation:
    return Operation(tag=TAG, summary=summary, answer={JSON: DOCUMENT}, has_entity_tag=True)


OPERATIONS: Mapping[str, Operation] = {
    "/livez": _live("Answer while the process runs."),
    "/healthz": _live("As /livez."),
    "/readyz": _ready("Answer 200 while the service is ready, else 503 with the reasons."),
    "/v2/health/live": _live("As /livez."),
    "/v2/health/ready": _ready("As /readyz."),
    "/metrics": Operation(
        tag=TAG,
        summary="The metrics of all workers for Prometheus.",
        description="In the format of Prometheus, or that of OpenMetrics where `Accept` asks for it.",
        answer={"text/plain": TEXT, "application/openmetrics-text": TEXT},
    ),
    "/": _page("The playground, a page on which people try the models."),
    "/playground": _page("As /."),
    "/playground/{asset}": Operation(
        tag=TAG,
        summary="A script, style or picture of the playground.",
        answer=dict.fromkeys(("text/javascript", "text/css", "text/html", "text/plain", "image/svg+xml"), TEXT),
        errors=("unknown-route",),
        has_entity_tag=True,
    ),
    "/openapi.json": _document("This document."),
    "/docs.json": _document("This document, where BentoML has it."),
    "/schema.json": Operation(
        tag=TAG,
        summary="The endpoints as BentoML's clients read them.",
        answer={
            JSON: {
                "type": "object",
                "required": ["name", "routes"],
                "properties": {"name": TEXT, "routes": array({"type": "object", "required": ["name", "route"]})},
            }
        },
    ),
}
