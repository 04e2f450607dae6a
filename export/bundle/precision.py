"""What the card of a variant says about its precision: what its weights lose against the model in float32."""

from export.bundle.tables import markdown_table
from service.contract.precision import Precision


def describe_precision(precision: Precision | None) -> str:
    """The text of the section; "" for a model in float32."""
    if precision is None:
        return ""
    rows = [("agreement", "1", f"{precision.agreement:.4f}")]
    if precision.metric:
        rows.insert(0, (precision.metric, f"{precision.parent_score:.5f}", f"{precision.score:.5f}"))
    table = markdown_table((f"on {precision.items:,} examples", "float32", precision.kind), rows)
    return f"The weights are those of `{precision.parent}`, stored as {precision.kind}.\n\n{table}"
