"""GET /: a page for people, with the models, their states and links to the machine-readable descriptions.

Invariant: the page holds no script, asks no other host for anything, and every text that comes from a bundle is
escaped.
"""

from pathlib import Path
from unicodedata import category

from jinja2 import Environment, StrictUndefined

from service.http.entity_tag import cacheable_response, entity_tag
from service.http.route import ReadRoute, Route, ServiceState
from service.http.wire.messages import HttpRequest, Response

FOLDER = Path(__file__).parent


def _printable(value: object) -> object:
    """Replace control characters, lone surrogates and marks of direction, which could hide what a text says."""
    if not isinstance(value, str):
        return value
    return "".join("\ufffd" if category(char).startswith("C") and char not in "\n\t" else char for char in value)


TEMPLATE = Environment(
    autoescape=True, finalize=_printable, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string((FOLDER / "overview.html").read_text("utf-8"))
STYLE = (FOLDER / "overview.css").read_bytes()
STYLE_TAG = entity_tag(STYLE)
HEADERS = [
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
]


async def _show(state: ServiceState, _: HttpRequest) -> Response:
    reason = "the service is shutting down" if state.draining else state.repository.not_ready_reason()
    text = TEMPLATE.render(models=state.repository.list_models(), reason=reason)
    return Response("text/html; charset=utf-8", text.encode(), HEADERS)


async def _style(_: ServiceState, request: HttpRequest) -> Response:
    return cacheable_response(request, "text/css; charset=utf-8", STYLE, STYLE_TAG)


ROUTES: tuple[Route, ...] = (ReadRoute(name="/", handle=_show), ReadRoute(name="/overview.css", handle=_style))
