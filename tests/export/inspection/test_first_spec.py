"""What a draft writes is TOML, whatever the names."""

import tomllib

from export.inspection.first_spec import Seen, axis_table, table, tensor_tables, toml


def test_values_survive_the_way_through_a_file() -> None:
    values = {"a": 'say "hi" \\ you', "b": [1, 2.5, "x"], "c": True, "d": {"e": 1}}
    text = table("t", values, {"a": "FILL IN: a note", "absent": "another note"})
    assert tomllib.loads(text) == {"t": values}
    assert "  # FILL IN: a note\n" in text
    assert "# absent: another note\n" in text


def test_tensors_and_axes_with_names_of_any_characters() -> None:
    text = tensor_tables("reader.inputs", [("x::1", "float32", ["batch", "a b", 3])])
    text += axis_table({"a b": (1, 5)}, is_guess=True)
    content = tomllib.loads(text)
    assert content["reader"]["inputs"] == [{"name": "x::1", "dtype": "float32", "shape": ["batch", "a b", 3]}]
    assert content["limits"]["axes"] == {"a b": [1, 5]}
    assert axis_table({}, is_guess=True) == ""


def test_lines_to_fill_in_are_counted() -> None:
    assert Seen(lines=("a",), spec="x = 1\n").text == "a"
    assert "fill in: 1" in Seen(lines=("a",), spec=f"x = {toml('y')}  # FILL IN: z\n").text
