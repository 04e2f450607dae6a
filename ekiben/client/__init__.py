"""A client of the service: `Client` blocks, `AsyncClient` runs on asyncio; both have the same methods."""

from ekiben.client.asynchronous import AsyncClient
from ekiben.client.blocking import Client
from ekiben.client.errors import (
    ConnectionFailedError,
    DeadlineError,
    EkibenClientError,
    Fault,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
    UnavailableError,
)
from ekiben.client.values import Completion, Completions, Images, Predictions, StreamEnd, Tensors, TextEvent

__all__ = [
    "AsyncClient",
    "Client",
    "Completion",
    "Completions",
    "ConnectionFailedError",
    "DeadlineError",
    "EkibenClientError",
    "Fault",
    "Images",
    "InvalidRequestError",
    "NotFoundError",
    "PermissionDeniedError",
    "Predictions",
    "ServiceError",
    "StreamEnd",
    "Tensors",
    "TextEvent",
    "UnavailableError",
]
