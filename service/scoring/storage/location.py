"""Names of places, for input and output alike: local paths and URIs such as `s3://bucket/folder?region=eu-west-1`.

Invariant: `str(location)` shows no option and no credential, so it may stand in messages, logs and files. `uri` holds
all of it and goes to workers alone. `exact_location(location.uri) == location`.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode

from service.scoring.job import ScoringError

Kind = Literal["file", "s3", "gs", "az", "hdfs", "http"]
KINDS: dict[str, Kind] = {
    "file": "file", "local": "file",
    "s3": "s3", "s3a": "s3", "s3n": "s3",
    "gs": "gs", "gcs": "gs",
    "az": "az", "azure": "az", "abfs": "az", "abfss": "az",
    "hdfs": "hdfs", "viewfs": "hdfs",
    "http": "http", "https": "http",
}  # fmt: skip
# The options of each kind of store, with the names that pyarrow and fsspec give them.
OPTIONS: dict[Kind, dict[str, str]] = {
    "s3": {
        **dict.fromkeys(("endpoint", "endpoint_url", "endpoint_override"), "endpoint"),
        "region": "region",
        **dict.fromkeys(("anonymous", "anon"), "skip_signature"),
        **dict.fromkeys(("access_key_id", "access_key", "key"), "access_key_id"),
        **dict.fromkeys(("secret_access_key", "secret_key", "secret"), "secret_access_key"),
        **dict.fromkeys(("session_token", "token"), "session_token"),
        "virtual_hosted_style_request": "virtual_hosted_style_request",
        "allow_http": "allow_http",
        "scheme": "scheme",
    },
    "gs": {
        **dict.fromkeys(("endpoint", "endpoint_url", "endpoint_override"), "base_url"),
        **dict.fromkeys(("anonymous", "anon"), "skip_signature"),
        **dict.fromkeys(("service_account", "token"), "service_account"),
        "allow_http": "allow_http",
    },
    "az": {
        **dict.fromkeys(("account", "account_name"), "account_name"),
        "account_key": "account_key",
        "sas_token": "sas_token",
        "endpoint": "endpoint",
        **dict.fromkeys(("anonymous", "anon"), "skip_signature"),
        "allow_http": "allow_http",
    },
    "hdfs": {"user": "user", "replication": "replication", "buffer_size": "buffer_size"},
    "file": {},
    "http": {},
}
SCHEME = re.compile(r"([A-Za-z0-9+.:_-]+?)://", re.ASCII)
# Options follow the last question mark; without an equals sign it is the wildcard for one character.
QUERY = re.compile(r"\?((?:[A-Za-z_][\w.-]*=[^&?*]*)(?:&[A-Za-z_][\w.-]*=[^&?*]*)*)$", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Location:
    """`root` is the bucket, the container or the host; "" for local files.

    `path` is the key without slashes at its ends, or a local path. `scheme` is the one that was given.
    """

    kind: Kind
    scheme: str
    root: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.path if self.kind == "file" else f"{self.scheme}://{self.root}/{self.path}"

    @property
    def uri(self) -> str:
        """The form for `exact_location`: the path is quoted, and the options follow even if there are none."""
        if self.kind == "file":
            return self.path
        return f"{self.scheme}://{self.root}/{quote(self.path)}?{urlencode(self.options)}"

    def with_path(self, path: str) -> "Location":
        return replace(self, path=path)

    def child(self, name: str) -> "Location":
        """The place of a file below this folder, by its relative path."""
        return self.with_path(f"{self.path.removesuffix('/')}/{name}" if self.path else name)

    def holds(self, other: "Location") -> bool:
        """Whether the other place is this one or lies in it."""
        if self.kind == "file" and other.kind == "file":
            folder, path = Path(self.path).resolve(), Path(other.path).resolve()
            return path == folder or folder in path.parents
        same_store = (self.kind, self.root, self.options) == (other.kind, other.root, other.options)
        return same_store and f"{other.path}/".startswith(f"{self.path}/" if self.path else "")


def check_utf8(place: str, *, option: str) -> None:
    """Raise ScoringError for a place whose name is not UTF-8, which is therefore in no record and no output."""
    try:
        place.encode()
    except UnicodeEncodeError as error:
        readable = place.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise ScoringError(f"{option} {readable}: the name is not UTF-8: rename the file or folder") from error


def parse_location(text: str, *, option: str) -> Location:
    """The place that a user names with the option `--input` or `--output`. Raises ScoringError."""
    check_utf8(_without_options(text), option=option)
    match = SCHEME.match(text)
    if match is None:
        scheme, slash, rest = text.partition(":/")
        if slash and scheme == "file":
            return _local(unquote(f"/{rest}"))
        if slash and scheme in KINDS:
            raise ScoringError(f"{option} {text}: expected {scheme}://, got {scheme}:/ (a local folder is ./{scheme}:)")
        return _local(text)
    scheme = match[1]
    kind = KINDS.get(scheme.lower())
    if kind is None:
        known = ", ".join(KINDS)
        raise ScoringError(f"{option} {_without_options(text)}: unknown scheme {scheme!r}, expected one of {known}")
    rest, query = text[match.end() :], ""
    if kind != "http" and (found := QUERY.search(rest)):
        rest, query = rest[: found.start()], found[1]
    if kind == "http" and "?" in rest:
        place = _without_options(text)
        raise ScoringError(
            f"{option} {place}: a URL with a query is not supported; name the bucket, or download the file"
        )
    root, _, path = rest.partition("/")
    if kind == "file":
        if root not in {"", "localhost"}:
            raise ScoringError(f"{option} {text}: expected file:///PATH, got the host {root!r}")
        _options(kind, query, f"{option} {text}")
        return _local(unquote(f"/{path}"))
    credentials, _, host = root.rpartition("@") if kind == "s3" else ("", "", root)
    location = Location(kind=kind, scheme=scheme, root=host, path=path.strip("/"))
    if not host and kind != "hdfs":
        raise ScoringError(f"{option} {location}: expected {scheme}://BUCKET/PATH")
    options = _options(kind, query, f"{option} {location}")
    if credentials:
        key, _, secret = credentials.partition(":")
        options |= {"access_key_id": unquote(key), "secret_access_key": unquote(secret)}
    return replace(location, options=tuple(sorted(options.items())))


def exact_location(uri: str) -> Location:
    """The place whose `uri` this is; a URI that a user wrote without options will do as well."""
    match = SCHEME.match(uri)
    if match is None:
        return _local(uri)
    if "?" not in uri:
        return parse_location(uri, option="--input")
    rest, _, query = uri[match.end() :].rpartition("?")
    root, _, path = rest.partition("/")
    options = tuple(parse_qsl(query, keep_blank_values=True))
    return Location(kind=KINDS[match[1].lower()], scheme=match[1], root=root, path=unquote(path), options=options)


def _local(path: str) -> Location:
    absolute = Path(path).absolute()
    return Location(
        kind="file", scheme="file", root="", path=str(absolute.resolve() if ".." in absolute.parts else absolute)
    )


def _options(kind: Kind, query: str, place: str) -> dict[str, str]:
    """The options by the names that the store takes. Raises ScoringError for one that it does not have."""
    options = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        known = OPTIONS[kind].get(name.lower())
        if known is None:
            names = ", ".join(OPTIONS[kind]) or "none"
            raise ScoringError(
                f"{place}: unknown option {name!r}, expected one of {names}; a question mark in a name is written %3F"
            )
        options[known] = value
    return options


def _without_options(text: str) -> str:
    """The text without what may be a credential."""
    head, scheme, rest = text.partition("://")
    return head + scheme + rest.partition("?")[0].rpartition("@")[2]
