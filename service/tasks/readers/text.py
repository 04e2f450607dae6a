"""Texts, as ids of the bundle's tokenizer."""

import numpy as np

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import check_items
from service.tasks.codecs.series import pad_rows
from service.tasks.codecs.texts import tokenize_rows
from service.tasks.faults import fault
from service.tasks.readers.payload import Fields, Group, Payload

FIELD = "texts"


async def read(model: Model, runner: Runner, fields: Fields, context: RequestContext) -> Payload:
    """Tokenize all texts of a request."""
    items = fields[FIELD]
    if items is None:
        raise fault("/texts", f"this field is required: {model.manifest.name} reads texts")
    check_items(items, model.manifest, "/texts")
    texts = {f"/texts/{i}": text for i, text in enumerate(items)}
    rows = await tokenize_rows(texts, model, runner, context, truncate=fields["truncate"])
    ids_BT, lengths_B = pad_rows([row.ids for row in rows], np.int64)
    return Payload(
        pointer="/texts", groups=(Group({"ids": ids_BT, "lengths": lengths_B}, range(len(rows)), texts=rows),)
    )
