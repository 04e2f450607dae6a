"""GET /openapi.json, and /docs.json, where BentoML has it: the OpenAPI document of what is served now."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import orjson

from service.errors import EkibenError
from service.http.entity_tag import cacheable_response, entity_tag
from service.http.openapi.document import build_document
from service.http.route import ReadRoute, Route, ServiceState
from service.http.wire.messages import JSON, HttpRequest, Response
from service.manifest import Manifest

PATHS = ("/openapi.json", "/docs.json")


class DocumentCache:
    """The last document; it is made again when other models or versions are READY."""

    def __init__(self, inventory: Callable[[], Iterable[Route]]) -> None:
        """`inventory` returns all routes of the router."""
        self._inventory = inventory
        self._last: tuple[list[tuple[str, str]], bytes, str] | None = None  # models, document, its tag

    async def respond(self, state: ServiceState, request: HttpRequest) -> Response:
        manifests = ready_manifests(state)
        models = [(manifest.name, manifest.version) for manifest in manifests]
        last = self._last
        if last is None or last[0] != models:
            # Not on the event loop: it takes milliseconds for each ten models.
            document = await asyncio.to_thread(self._write, manifests)
            last = self._last = models, document, entity_tag(document)
        _, document, tag = last
        return cacheable_response(request, JSON, document, tag)

    def _write(self, manifests: list[Manifest]) -> bytes:
        return orjson.dumps(build_document(self._inventory(), manifests))


def document_routes(inventory: Callable[[], Iterable[Route]]) -> tuple[ReadRoute, ...]:
    """Return the routes of the document of these routes and of themselves."""
    cache = DocumentCache(inventory)
    return tuple(ReadRoute(name=path, handle=cache.respond) for path in PATHS)


def ready_manifests(state: ServiceState) -> list[Manifest]:
    """Return the manifests of the models that are READY."""
    manifests = []
    for row in state.repository.list_models():
        if row["state"] == "READY":
            with suppress(EkibenError):  # it was unloaded meanwhile
                manifests.append(state.repository.get(row["name"]).manifest)
    return manifests
