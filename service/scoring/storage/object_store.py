"""Opens object stores. Requests that fail for a moment are repeated within bounds; errors become one line.

Options of the location come first, then the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`), then the machine's identity.
"""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from service.scoring.job import ScoringError
from service.scoring.storage.location import Location

# Variables that a store reads.
PREFIXES = ("AWS_", "GOOGLE_", "AZURE_")
# How the answers of stores end that have no such bucket.
ABSENT = ("(NoSuchBucket)", "(ContainerNotFound)")
# Where a machine of a cloud asks for its identity, which is the last resort.
METADATA_ADDRESS = "169.254.169.254"
MAX_RETRIES = 8
RETRY_TIMEOUT = timedelta(seconds=60)
FIRST_BACKOFF, MAX_BACKOFF = timedelta(milliseconds=100), timedelta(seconds=5)
CONNECT_TIMEOUT, READ_TIMEOUT, REQUEST_TIMEOUT = timedelta(seconds=10), timedelta(seconds=60), timedelta(minutes=5)


def open_store(location: Location) -> Any:
    """The `obstore.store.ObjectStore` of the bucket, container or host; one for each process."""
    environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(PREFIXES)))
    return _open(location.kind, location.scheme, location.root, location.options, environment)


@functools.lru_cache(maxsize=64)
def _open(
    kind: str,
    scheme: str,
    root: str,
    options: tuple[tuple[str, str], ...],
    environment: tuple[tuple[str, str], ...],
) -> Any:
    place = f"{scheme}://{root}"
    try:
        from obstore import store  # noqa: PLC0415 - only jobs with an object store need it
        from obstore.exceptions import BaseError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ScoringError(f"{place} needs the dependency group `batch`: {error}") from error
    config: dict[str, Any] = dict(options)
    client: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT}
    client["timeout"] = REQUEST_TIMEOUT
    endpoint_scheme = config.pop("scheme", "https")
    for name in ("endpoint", "base_url"):
        if name in config and "://" not in config[name]:
            config[name] = f"{endpoint_scheme}://{config[name]}"
    allow_http = config.pop("allow_http", dict(environment).get("AWS_ALLOW_HTTP", "")).lower() in {"true", "1", "yes"}
    # Who names an endpoint with http:// has allowed it.
    endpoints = [*config.values(), *(value for name, value in environment if "ENDPOINT" in name)]
    if allow_http or scheme == "http" or any(value.startswith("http://") for value in endpoints):
        client["allow_http"] = True
    common: dict[str, Any] = {
        "client_options": client,
        "retry_config": {
            "max_retries": MAX_RETRIES,
            "retry_timeout": RETRY_TIMEOUT,
            "backoff": {"init_backoff": FIRST_BACKOFF, "max_backoff": MAX_BACKOFF, "base": 2},
        },
    }
    try:
        match kind:
            case "s3":
                return store.S3Store(root, **config, **common)
            case "gs":
                return store.GCSStore(root, **config, **common)
            case "az":
                container, _, host = root.partition("@")
                if host:
                    config.setdefault("account_name", host.partition(".")[0])
                return store.AzureStore(container, **config, **common)
            case _:
                return store.HTTPStore(place, **common)
    except (BaseError, ValueError, TypeError) as error:
        raise ScoringError(f"{place}: {_one_line(error)}") from error


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Raise OSError that names the place for an error of the store; a missing object or bucket is FileNotFoundError."""
    from obstore.exceptions import BaseError  # noqa: PLC0415 - the store was opened before

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{place}: there is no such object or bucket") from error
    except (BaseError, ValueError) as error:
        line = _one_line(error)
        kind = FileNotFoundError if line.endswith(ABSENT) else OSError
        raise kind(f"{place}: {line}") from error


def _one_line(error: Exception) -> str:
    """What the store answered, else the first line of the message; without signatures."""
    text = str(error).strip()
    answer = re.search(r"<Code>([^<]+)</Code>\s*<Message>([^<]+)</Message>", text)
    # Azure adds lines with the number and the time of the request.
    line = f"{answer[2].splitlines()[0]} ({answer[1]})" if answer else text.partition("\n")[0]
    if METADATA_ADDRESS in line:
        return (
            "no credentials: set them in the environment, or, to read what is public, give the option anonymous=true "
            f"({line})"
        )
    return re.sub(r"((?:sig|[Ss]ignature|X-Amz-[A-Za-z-]+)=)[^&\s\"]+", r"\1***", line)
