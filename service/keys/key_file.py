"""The keys of clients: a file with one line a key.

A line is `NAME sha256=HEX scopes=infer,models` and perhaps `rate=`, `burst=`, `concurrency=`, `expires=`.
Invariant: the file holds hashes alone. SHA-256 suffices: a key is 256 random bits, which no guessing reaches, so a slow
hash, which makes guessing passwords slower, would only make every request slower.
"""

import hashlib
import math
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Literal, get_args

# What a key may be allowed to do: compute answers; read what is loaded; read metrics; load and unload models.
Scope = Literal["infer", "models", "metrics", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
KEY_PREFIX = "ek_"  # so that scanners for leaked secrets recognise a key
MAX_KEY_CHARS = 256
MAX_FILE_BYTES = 4 << 20
MAX_RATE = 1e6  # requests per second
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FIELDS = ("sha256", "scopes", "rate", "burst", "concurrency", "expires")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One line of the file."""

    name: str
    digest: bytes  # SHA-256 of the key
    scopes: frozenset[Scope]
    rate: float = 0.0  # requests per second; 0: any
    burst: int = 0  # requests at once, with a rate
    concurrency: int = 0  # inference requests at the same time; 0: any
    expires_at: float = math.inf  # seconds since 1970, UTC


def new_key() -> str:
    """Return a new key: a prefix and 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest_key(key: str) -> bytes:
    """Return the SHA-256 of a key. Raises ValueError for what no key can be."""
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isascii():
        raise ValueError("not a key")
    return hashlib.sha256(key.encode()).digest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file. Raises ValueError, or OSError if it cannot be read.

    A file that others may write to is refused: whoever writes to it makes keys.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("expected a file")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"others may write to it (mode {stat.S_IMODE(status.st_mode):o}): chmod go-w {path}")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"expected a file of at most {MAX_FILE_BYTES} bytes, got {status.st_size}")
    return parse_key_file(path.read_bytes())


def parse_key_file(content: bytes) -> tuple[Key, ...]:
    """Return the keys of the lines; raises ValueError that names the line and the field."""
    keys: dict[str, Key] = {}
    names: dict[bytes, str] = {}
    for number, key in _parse_lines(content):
        if key.name in keys:
            raise ValueError(f"line {number}: the name {key.name!r} is given twice")
        if key.digest in names:
            raise ValueError(f"line {number}: {key.name!r} has the hash of {names[key.digest]!r}")
        keys[key.name] = key
        names[key.digest] = key.name
    if not keys:
        raise ValueError("expected at least one key")
    return tuple(keys.values())


def _parse_lines(content: bytes) -> Iterator[tuple[int, Key]]:
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            try:
                yield number, parse_line(text)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


def parse_line(line: str) -> Key:
    """Return the key of a line; raises ValueError that names the field."""
    name, *pairs = line.split()
    if not NAME.fullmatch(name):
        raise ValueError(f"expected a name of letters, digits, '.', '_' and '-', got {name[:40]!r}")
    fields: dict[str, str] = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if field not in FIELDS or not equals or not value:
            raise ValueError(f"expected {'=, '.join(FIELDS)}= with a value, got {pair[:40]!r}")
        if field in fields:
            raise ValueError(f"{field} is given twice")
        fields[field] = value
    for field in ("sha256", "scopes"):
        if field not in fields:
            raise ValueError(f"{field}= is missing")
    if "burst" in fields and "rate" not in fields:
        raise ValueError("burst= needs rate=")
    rate = _parse_rate(fields["rate"]) if "rate" in fields else 0.0
    return Key(
        name=name,
        digest=_parse_digest(fields["sha256"]),
        scopes=parse_scopes(fields["scopes"]),
        rate=rate,
        burst=_parse_count("burst", fields["burst"]) if "burst" in fields else math.ceil(rate),
        concurrency=_parse_count("concurrency", fields["concurrency"]) if "concurrency" in fields else 0,
        expires_at=_parse_expiry(fields["expires"]) if "expires" in fields else math.inf,
    )


def _parse_digest(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        # Not quoted: it may be the key itself, put there by mistake.
        raise ValueError("sha256: expected 64 hexadecimal digits in lower case, the hash of a key")
    return bytes.fromhex(text)


def parse_scopes(text: str) -> frozenset[Scope]:
    """Return the scopes of a list with commas; raises ValueError that names the wrong one."""
    scopes = set()
    for part in text.split(","):
        scope = next((scope for scope in SCOPES if scope == part.strip()), None)
        if scope is None:
            raise ValueError(f"scopes: expected {', '.join(SCOPES)}, got {part[:40]!r}")
        scopes.add(scope)
    return frozenset(scopes)


def _parse_rate(text: str) -> float:
    rate = float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0.0
    if not 1e-6 <= rate <= MAX_RATE:
        raise ValueError(f"rate: expected requests per second, up to {MAX_RATE:.0f}, got {text[:40]!r}")
    return rate


def _parse_count(field: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise ValueError(f"{field}: expected a whole number of at least 1, got {text[:40]!r}")
    return int(text)


def _parse_expiry(text: str) -> float:
    """Return the moment in seconds since 1970; a date alone means its first moment, UTC."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return datetime.combine(date.fromisoformat(text), time(), UTC).timestamp()
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return moment.timestamp()
    except ValueError:
        expected = "expected a date such as 2027-01-01 or a time with its zone, such as 2027-01-01T12:00:00Z"
        raise ValueError(f"expires: {expected}, got {text[:40]!r}") from None
