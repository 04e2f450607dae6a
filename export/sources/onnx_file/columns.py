"""The spec of a graph that takes a table column by column, as skl2onnx writes pipelines with a ColumnTransformer.

Each input [batch, 1] is a column: floats are numbers, texts are categories, whose values the encoder that reads them
holds.
"""

from collections.abc import Mapping
from typing import Any

import onnx

from export.sources.onnx_file.labels import node_labels

# Attributes of the encoders that read a column of texts.
VALUES = ("cats_strings", "keys_strings")


def draft_table(graph: onnx.GraphProto, columns: Mapping[str, str]) -> dict[str, Any] | None:
    """The reader and head of a graph with these columns, by their dtypes; None if they are no table of known values."""
    drafted: list[dict[str, Any]] = []
    for name, dtype in columns.items():
        values = _values(graph, name) if dtype == "string" else []
        if dtype not in {"string", "float32"} or (dtype == "string" and not values):
            return None
        category = {"kind": "category", "name": name, "values": values}
        drafted.append(category if values else {"kind": "number", "name": name})
    labels = next(iter(node_labels(graph)), None)
    head = {"kind": "tensors"} if labels is None else {"kind": "labels", "labels": labels}
    return {"reader": {"kind": "table", "columns": drafted}, "head": head} if len(drafted) > 1 else None


def _values(graph: onnx.GraphProto, name: str) -> list[str]:
    """The texts that the only reader of a column knows."""
    readers = [node for node in graph.node if name in node.input]
    found = [attribute for node in readers for attribute in node.attribute if attribute.name in VALUES]
    return [text.decode() for text in found[0].strings] if len(readers) == len(found) == 1 else []
