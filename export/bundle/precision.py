"""What the card of a variant says about its precision: what it loses against the model in float32."""

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
    if precision.kind == "tf32":
        text = (
            f"The graph is that of `{precision.parent}`. A GPU computes its products in TF32, a CPU in float32. The "
            "figures are those of a simulation, which rounds the inputs of products to 10 bits."
        )
    else:
        text = f"The weights are those of `{precision.parent}`, stored as {precision.kind}."
    return f"{text}\n\n{table}"
