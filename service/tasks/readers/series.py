"""Series of numbers of variable length, with the state of a stateful model.

Invariant: rows are padded to the longest row of their request, and the model receives the length of each row, so an
answer does not depend on the padding. The service keeps no state: clients send that of a stateful model.
"""

import numpy as np

from service.bundle import Tensors
from service.contract.readers import SeriesReader
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.manifest import Manifest
from service.tasks.body import check_items
from service.tasks.codecs.series import pad_rows, read_series
from service.tasks.codecs.states import unpack_state
from service.tasks.faults import fault, type_fault
from service.tasks.readers.payload import Fields, Group, Payload

FIELD = "sequences"


async def read(model: Model, _runner: Runner, fields: Fields, _context: RequestContext) -> Payload:
    """Read all series of a request."""
    manifest, reader, items = model.manifest, model.manifest.reader, fields[FIELD]
    assert isinstance(reader, SeriesReader), "the reader of series models"
    if items is None:
        raise fault("/sequences", f"this field is required: {manifest.name} reads series of numbers")
    check_items(items, manifest, "/sequences")
    rows = [
        read_series(row, manifest, channels=reader.channels, pointer=f"/sequences/{i}") for i, row in enumerate(items)
    ]
    series_BTC, lengths_B = pad_rows(rows, np.float32, reader.channels)
    inputs: Tensors = {"series": series_BTC, "lengths": lengths_B}
    if reader.state is not None:
        given = fields["states"]
        states = given if given is not None else [None] * len(rows)
        if len(states) != len(rows):
            raise type_fault("/states", f"as many states as sequences ({len(rows)})", states)
        state_B2LH = np.stack(
            [unpack_state(text, manifest, reader.state, f"/states/{i}") for i, text in enumerate(states)]
        )
        inputs = {
            **inputs,
            "h": np.ascontiguousarray(state_B2LH[:, 0]),
            "c": np.ascontiguousarray(state_B2LH[:, 1]),
        }
    return Payload(pointer="/sequences", groups=(Group(inputs, range(len(rows))),))


def options(manifest: Manifest) -> tuple[str, ...]:
    """A stateful model also reads states."""
    reader = manifest.reader
    return ("states",) if isinstance(reader, SeriesReader) and reader.state is not None else ()
