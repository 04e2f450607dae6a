"""What a client accepts, and the codings of bodies: gzip and deflate (RFC 9110, sections 8.4 and 12.5).

Invariant: an unpacked body is never larger than the limit, and a packed one that is cut off, or followed by other
bytes, is refused.
"""

import asyncio
import gzip
import re
import zlib

from service.errors import EkibenError
from service.http.wire.messages import JSON, HttpRequest, Reserve, Response, body_too_large

CODINGS = ("gzip", "deflate")
WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
CHUNK_BYTES = 1 << 17  # unpacked within half a millisecond
MIN_PACKED_BYTES = 1 << 11  # of an answer that is worth packing: it fills more than one packet
PACKED_TYPES = (JSON, "application/problem+json")
LEVEL = 1  # numbers and base64 hardly shrink further at a higher one, which costs three times as much
MAX_INLINE_BYTES = 1 << 15  # of an answer; a larger one is packed on a thread, while the event loop runs
QUALITY = re.compile(r"[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)


def quality(accept: str, name: str) -> float:
    """Return the weight (0 to 1) that an `Accept` or `Accept-Encoding` header gives to a media type or coding.

    The most specific range counts: `image/png`, `image/*`, `*/*` or `*`. An absent name has 0, an invalid weight is 1.
    """
    ranges = {}
    for part in accept.lower().split(","):
        value, *parameters = part.split(";")
        weights = [match[1] for parameter in parameters if (match := QUALITY.fullmatch(parameter))]
        ranges[value.strip()] = float(weights[0]) if weights else 1.0
    for pattern in (name, f"{name.partition('/')[0]}/*", "*/*", "*"):
        if pattern in ranges:
            return ranges[pattern]
    return 0.0


async def unpack_body(request: HttpRequest, body: bytes, limit: int, reserve: Reserve) -> bytes:
    """Return the body without its content coding, at most `limit` bytes; `reserve` counts its memory as it grows.

    Raises EkibenError: "unsupported-media-type", "malformed-message", "body-too-large", or that of `reserve`.
    """
    coding = ", ".join(request.values("content-encoding")).lower()
    if coding == "identity":
        return body
    if coding not in WINDOW_BITS:
        request.reply_headers.append(("accept-encoding", ", ".join(CODINGS)))
        detail = f"expected no Content-Encoding but one of {', '.join(CODINGS)}, got {coding[:40]!r}"
        raise EkibenError("unsupported-media-type", detail)

    parts: list[bytes] = []
    size, rest = 0, body
    try:
        while rest or not parts:  # gzip allows several members, one after the other
            stream = zlib.decompressobj(WINDOW_BITS[coding])
            while not stream.eof:
                parts.append(stream.decompress(rest, CHUNK_BYTES))
                if not rest and not parts[-1]:
                    raise EkibenError("malformed-message", f"the body ends in the middle of its {coding} data")
                rest = stream.unconsumed_tail
                size += len(parts[-1])
                if size > limit:
                    raise body_too_large(f"more than {limit} bytes in {coding}", limit)
                reserve(request, len(body) + size)
                await asyncio.sleep(0)  # other requests have their turn, and this one may be cancelled
            rest = stream.unused_data
            if rest and coding == "deflate":
                raise EkibenError("malformed-message", f"{len(rest)} bytes follow the deflate data")
    except zlib.error as error:
        raise EkibenError("malformed-message", f"expected {coding} data: {error}") from None
    return b"".join(parts)


async def pack_response(request: HttpRequest, response: Response) -> Response:
    """Return the response, with gzip if it is worth it and the client asks for that."""
    if len(response.body) < MIN_PACKED_BYTES or response.content_type not in PACKED_TYPES:
        return response
    headers = [*response.headers, ("vary", "accept-encoding")]
    accept = request.header("accept-encoding")
    weight = quality(accept, "gzip") if accept else 0.0
    # An answer as it is needs no mention to be accepted.
    if weight == 0.0 or ("identity" in accept and weight < quality(accept, "identity")):
        return response._replace(headers=headers)
    body = response.body
    packed = (
        gzip.compress(body, LEVEL, mtime=0)
        if len(body) <= MAX_INLINE_BYTES
        else await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)
    )
    if len(packed) >= len(body):
        return response._replace(headers=headers)
    return response._replace(body=packed, headers=[*headers, ("content-encoding", "gzip")])
