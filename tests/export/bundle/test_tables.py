"""Tables have a header, a rule and rows."""

from export.bundle.tables import markdown_table


def test_a_markdown_table_has_a_header_a_rule_and_rows() -> None:
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
