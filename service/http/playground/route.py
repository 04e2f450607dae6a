"""GET / and /playground: the page on which people try the models, and its assets.

Invariant: the page and its assets hold no data of the service and are readable without a key; what the page shows comes
from the ordinary routes. The policy of its content allows nothing inline and nothing from another origin.
"""

from collections.abc import Mapping
from pathlib import Path

from service.errors import EkibenError
from service.http.entity_tag import cacheable_response, entity_tag
from service.http.route import ReadRoute, Route, ServiceState
from service.http.wire.messages import HttpRequest, Response

FOLDER = Path(__file__).parent / "assets"
PAGE = "index.html"
CONTENT_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
]
ASSETS: Mapping[str, bytes] = {
    path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in CONTENT_TYPES
}
TAGS: Mapping[str, str] = {name: entity_tag(body) for name, body in ASSETS.items()}


def _respond(state: ServiceState, request: HttpRequest, name: str) -> Response:
    if not state.has_playground or name not in ASSETS:
        detail = "this service has no playground" if not state.has_playground else f"there is no {request.path}"
        raise EkibenError("unknown-route", f"{detail}; the routes are described at /openapi.json")
    content_type = CONTENT_TYPES[Path(name).suffix]
    response = cacheable_response(request, content_type, ASSETS[name], TAGS[name])
    return response._replace(headers=[*response.headers, *HEADERS])


async def _show_page(state: ServiceState, request: HttpRequest) -> Response:
    return _respond(state, request, PAGE)


async def _show_asset(state: ServiceState, request: HttpRequest) -> Response:
    # From /playground/, with its slash, the links of the page lead to /playground/playground/….
    return _respond(state, request, request.path.rpartition("/")[2])


ROUTES: tuple[Route, ...] = tuple(ReadRoute(name=path, handle=_show_page, scope=None) for path in ("/", "/playground"))
ASSET = ReadRoute(name="/playground/{asset}", handle=_show_asset, scope=None)


def match_prefix(path: str) -> ReadRoute | None:
    """Return the route of a path that names an asset."""
    return ASSET if path.startswith("/playground/") else None
