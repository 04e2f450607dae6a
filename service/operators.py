"""Checks the operators of a graph: standard ones at the declared opset, in a file that contains all of its data."""

from service.onnx_wire import field_bytes, read_messages

STANDARD_DOMAINS = {"", "ai.onnx"}
FORBIDDEN_FIELDS = {
    ("Model", 20): "it carries training information",
    ("Model", 25): "it defines local functions",
    ("Tensor", 13): "it refers to external data",
}


def check_operators(content: bytes, *, opset: int) -> None:
    """Raise ValueError unless the ONNX file is self-contained and uses only standard operators at `opset`."""
    num_graphs, opsets = 0, set[int]()
    for kind, fields in read_messages(content):
        num_graphs += kind == "Graph"
        # A version that is absent is 0 in protobuf.
        version = 0
        for number, value in fields:
            field = kind, number
            if field in FORBIDDEN_FIELDS:
                raise ValueError(FORBIDDEN_FIELDS[field])
            if field in {("Node", 7), ("OperatorSet", 1)}:
                domain = str(field_bytes(value, kind, number), "utf-8")
                if domain not in STANDARD_DOMAINS:
                    raise ValueError(f"operator domain {domain[:80]!r}, expected only standard ONNX operators")
            elif field == ("Tensor", 14) and value != 0:
                raise ValueError(FORBIDDEN_FIELDS["Tensor", 13])
            elif field == ("OperatorSet", 2):
                version = value if isinstance(value, int) else 0
        if kind == "OperatorSet":
            opsets.add(version)
    if not num_graphs:
        raise ValueError("it has no graph")
    if opsets != {opset}:
        raise ValueError(f"opset {' and '.join(map(str, sorted(opsets))) or 'missing'}, expected {opset}")
