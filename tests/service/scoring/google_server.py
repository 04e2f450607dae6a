"""The XML API of Google Cloud Storage, as a WSGI application over one dictionary.

https://cloud.google.com/storage/docs/xml-api/overview: objects with generations and their conditions, ranges, lists of
the second version, and uploads in parts. Conditional writes, ranges and absent objects have the statuses of Google's
storage-testbench (revision e8c8507), which has neither ETags nor lists.
"""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

MIN_PART_BYTES = 5 << 20
Headers = dict[str, str]
Answer = tuple[str, Headers, bytes]


@dataclass(kw_only=True)
class StoredObject:
    content: bytes
    e_tag: str
    generation: int
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def headers(self) -> Headers:
        return {
            "ETag": self.e_tag,
            "Last-Modified": format_datetime(self.modified, usegmt=True),
            "x-goog-generation": str(self.generation),
            "x-goog-metageneration": "1",
        }


class GoogleApp:
    """`buckets`: the names of those that exist."""

    def __init__(self, buckets: Iterable[str]) -> None:
        self._buckets: dict[str, dict[str, StoredObject]] = {name: {} for name in buckets}
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._numbers = itertools.count(1_700_000_000_000_000)
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        path = environ["PATH_INFO"].encode("latin-1").decode()
        bucket, _, key = path.removeprefix("/").partition("/")
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        with self._lock:
            status, headers, content = self._answer(environ, bucket, key, query, body)
        headers.setdefault("Content-Length", str(len(content)))
        start_response(status, list(headers.items()))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]

    def _answer(self, environ: dict[str, Any], bucket: str, key: str, query: dict[str, str], body: bytes) -> Answer:
        objects, method = self._buckets.get(bucket), environ["REQUEST_METHOD"]
        if objects is None:
            return _error("404 Not Found", "NoSuchBucket", "The specified bucket does not exist.")
        if not key:
            return _list(objects, query)
        if "uploads" in query or "uploadId" in query:
            return self._upload(objects, method, key, query, body)
        if method == "PUT":
            return self._put(objects, key, body, environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH"))
        if key not in objects:
            return _error("404 Not Found", "NoSuchKey", "The specified key does not exist.")
        return self._delete(objects, key) if method == "DELETE" else _read(objects[key], environ)

    def _put(self, objects: dict[str, StoredObject], key: str, body: bytes, generation: str | None) -> Answer:
        """Store an object if this generation is the current one; 0 stands for none."""
        found = objects.get(key)
        if generation is not None and int(generation) != (found.generation if found else 0):
            return _failed()
        return "200 OK", self._store(objects, key, body, f'"{hashlib.md5(body).hexdigest()}"').headers, b""

    def _delete(self, objects: dict[str, StoredObject], key: str) -> Answer:
        del objects[key]
        return "204 No Content", {}, b""

    def _store(self, objects: dict[str, StoredObject], key: str, content: bytes, e_tag: str) -> StoredObject:
        objects[key] = StoredObject(content=content, e_tag=e_tag, generation=next(self._numbers))
        return objects[key]

    def _upload(
        self, objects: dict[str, StoredObject], method: str, key: str, query: dict[str, str], body: bytes
    ) -> Answer:
        """One request of an upload in parts."""
        if "uploads" in query:
            name = f"upload-{next(self._numbers)}"
            self._uploads[name] = {}
            content = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            return "200 OK", {}, content.encode()
        parts = self._uploads.get(query["uploadId"])
        if parts is None:
            return _error("404 Not Found", "NoSuchUpload", "The requested upload was not found.")
        if method == "PUT":
            parts[int(query["partNumber"])] = body
            return "200 OK", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b""
        if method == "DELETE":
            del self._uploads[query["uploadId"]]
            return "204 No Content", {}, b""
        contents = [parts[number] for number in sorted(parts)]
        if any(len(content) < MIN_PART_BYTES for content in contents[:-1]):
            return _error("400 Bad Request", "EntityTooSmall", "Your proposed upload is smaller than the minimum.")
        del self._uploads[query["uploadId"]]
        content = b"".join(contents)
        stored = self._store(objects, key, content, f'"{hashlib.md5(content).hexdigest()}-{len(contents)}"')
        result = f"<CompleteMultipartUploadResult><ETag>{stored.e_tag}</ETag></CompleteMultipartUploadResult>"
        return "200 OK", {"x-goog-generation": str(stored.generation)}, result.encode()


def _list(objects: dict[str, StoredObject], query: dict[str, str]) -> Answer:
    """A page of a list; what follows the delimiter in a key is one common prefix."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    after = max(query.get("continuation-token", ""), query.get("start-after", ""))
    entries: dict[str, str] = {}
    for key, stored in sorted(objects.items()):
        rest = key.removeprefix(prefix)
        if not key.startswith(prefix):
            continue
        if delimiter and delimiter in rest:
            folder = prefix + rest.partition(delimiter)[0] + delimiter
            entries[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            continue
        entries[key] = (
            f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.content)}</Size><ETag>{stored.e_tag}</ETag>"
            f"<LastModified>{stored.modified.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}</LastModified>"
            f"<Generation>{stored.generation}</Generation></Contents>"
        )
    names = [name for name in sorted(entries) if name > after]
    page = names[: int(query.get("max-keys", 1000))]
    more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(page) < len(names) else ""
    content = f"<ListBucketResult>{more}{''.join(entries[name] for name in page)}</ListBucketResult>"
    return "200 OK", {"Content-Type": "application/xml"}, content.encode()


def _read(found: StoredObject, environ: dict[str, Any]) -> Answer:
    if environ.get("HTTP_IF_MATCH", found.e_tag) != found.e_tag:
        return _failed()
    byte_range = environ.get("HTTP_RANGE", "")
    if not byte_range:
        return "200 OK", found.headers | {"Content-Length": str(len(found.content))}, found.content
    size = len(found.content)
    first, _, last = byte_range.removeprefix("bytes=").partition("-")
    start, end = (int(first), min(int(last or size), size - 1)) if first else (max(size - int(last), 0), size - 1)
    if start >= size:
        return _error("416 Requested Range Not Satisfiable", "InvalidRange", "The range cannot be satisfied.")
    headers = found.headers | {"Content-Range": f"bytes {start}-{end}/{size}"}
    return "206 Partial Content", headers, found.content[start : end + 1]


def _failed() -> Answer:
    reason = "At least one of the pre-conditions you specified did not hold."
    return _error("412 Precondition Failed", "PreconditionFailed", reason)


def _error(status: str, code: str, message: str) -> Answer:
    content = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return status, {"Content-Type": "application/xml; charset=UTF-8"}, content.encode()
