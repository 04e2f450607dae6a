"""Responses that a client may have already: `ETag` and `If-None-Match` (RFC 9110, section 8.8.3)."""

import hashlib
from http import HTTPStatus

from service.http.wire.messages import HttpRequest, Response


def entity_tag(body: bytes) -> str:
    """Return the tag of a body: a weak one, because the body may be sent compressed or not."""
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


def cacheable_response(request: HttpRequest, content_type: str, body: bytes, tag: str) -> Response:
    """Return the body, or 304 if the client has the body with this tag; caches ask every time."""
    headers = [("etag", tag), ("cache-control", "no-cache")]
    known = {each.strip().removeprefix("W/") for each in request.header("if-none-match").split(",")}
    if known & {tag.removeprefix("W/"), "*"}:
        headers.append(("vary", "accept-encoding"))  # as the body has it, which may be compressed
        return Response(content_type, b"", headers, int(HTTPStatus.NOT_MODIFIED))
    return Response(content_type, body, headers)
