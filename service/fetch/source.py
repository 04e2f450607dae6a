"""What is fetched: a place, the SHA-256 digest of what has to be there, and what its version becomes.

The digest is that of a bundle's manifest.json, which holds the hashes of all other files, or of the manifest of an OCI
artifact, which holds the digests of its layers. Invariant: `str(source)` shows no credential and no option.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

DIGEST = re.compile("[0-9a-f]{64}")
OCI = "oci://"
# The file beside the versions of a model that names this one.
Pointer = Literal["current", "candidate"]
AZURE = ("az", "azure", "abfs", "abfss")  # CONTAINER@ACCOUNT stands where others have a user


class FetchError(Exception):
    """Nothing was placed; the message names the source, the file and what to do."""


class DeniedError(FetchError):
    """A store refuses a file; one that may not be listed says so of a file that is not there, too."""


class ConflictError(FetchError):
    """Two sources cannot both become what they are fetched for."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """`digest` is 64 hex digits; `place` is a folder or a URI."""

    place: str
    digest: str
    pointer: Pointer

    @property
    def is_artifact(self) -> bool:
        return self.place.startswith(OCI)

    def __str__(self) -> str:
        return without_credentials(self.place)


def parse_source(text: str, pointer: Pointer = "current") -> Source:
    """Parse PLACE@sha256:DIGEST. Raises ValueError."""
    place, separator, digest = text.rpartition("@sha256:")
    label = without_credentials(place or text)
    if not separator or not place:
        raise ValueError(f"{label}: expected PLACE@sha256:DIGEST; sha256sum of its manifest.json prints the digest")
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"{label}: sha256:{digest[:80]} is no digest of 64 hex digits")
    return Source(place=place, digest=digest, pointer=pointer)


def without_credentials(place: str) -> str:
    """Return the place without user, password, query and fragment."""
    if "://" not in place:
        return place
    parts = urlsplit(place)
    container = f"{parts.username}@" if parts.scheme in AZURE and parts.username else ""
    return f"{parts.scheme}://{container}{parts.netloc.rpartition('@')[2]}{parts.path}"
