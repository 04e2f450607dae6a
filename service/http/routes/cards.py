"""The model card in a bundle, and its plots: the files that `make export` wrote for people.

Invariant: no other file of a bundle can be read, and a file is sent only with the bytes that the manifest lists.
"""

import asyncio

from service.errors import EkibenError
from service.http.entity_tag import cacheable_response
from service.http.route import ReadRoute, ServiceState
from service.http.wire.messages import HttpRequest, Response
from service.manifest import CARD

PREFIX = "/models/"
MARKDOWN, PNG = "text/markdown; charset=utf-8", "image/png"
# A card is written by whoever made the bundle: a browser that opens it runs and loads nothing.
HEADERS = [("content-security-policy", "default-src 'none'; sandbox"), ("x-content-type-options", "nosniff")]


async def _respond(state: ServiceState, request: HttpRequest, file: str, content_type: str) -> Response:
    name = request.path.removeprefix(PREFIX).partition("/")[0]
    found = await asyncio.to_thread(state.repository.read_document, name, file)
    if found is None:
        raise EkibenError("unknown-route", f"the bundle of {name} has no {file[:100]}")
    body, digest = found
    response = cacheable_response(request, content_type, body, f'W/"{digest[:32]}"')
    return response._replace(headers=[*response.headers, *HEADERS])


async def _show_card(state: ServiceState, request: HttpRequest) -> Response:
    return await _respond(state, request, CARD, MARKDOWN)


async def _show_plot(state: ServiceState, request: HttpRequest) -> Response:
    file = request.path.rpartition("/")[2]
    if not file.endswith(".png"):
        raise EkibenError("unknown-route", f"a card has only PNG files, not {file[:100]}")
    return await _respond(state, request, file, PNG)


MODEL_CARD = ReadRoute(name="/models/{model}/card", handle=_show_card)
PLOT = ReadRoute(name="/models/{model}/card/{plot}", handle=_show_plot)


def match_prefix(path: str) -> ReadRoute | None:
    """Return the route of a path that names a card or one of its plots."""
    match path.removeprefix(PREFIX).split("/") if path.startswith(PREFIX) else []:
        case [_, "card"]:
            return MODEL_CARD
        case [_, "card", _]:
            return PLOT
        case _:
            return None
