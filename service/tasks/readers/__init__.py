"""The registry of readers: how the payload of a request becomes input tensors, by the kind of reader."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.manifest import Manifest
from service.tasks.readers import image, series, table, tensors, text
from service.tasks.readers.payload import Fields, Payload


@dataclass(frozen=True, kw_only=True)
class Reader:
    """`field` holds the items of a request; `options` are further fields that the reader uses."""

    field: str
    read: Callable[[Model, Runner, Fields, RequestContext], Awaitable[Payload]]
    options: Callable[[Manifest], tuple[str, ...]] = lambda _: ()


READERS: Mapping[str, Reader] = {
    "image": Reader(field=image.FIELD, read=image.read),
    "series": Reader(field=series.FIELD, read=series.read, options=series.options),
    "text": Reader(field=text.FIELD, read=text.read, options=lambda _: ("truncate",)),
    "table": Reader(field=table.FIELD, read=table.read),
    "tensors": Reader(field=tensors.FIELD, read=tensors.read),
}
