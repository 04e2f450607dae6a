"""The text of a first spec.toml: what was seen stands there, what only its owner knows is a line to fill in."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FILL_IN = "# FILL IN:"
MULTIPLES = "if the model takes multiples of a number alone"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a file is and holds, a line each, and a first spec of the model."""

    lines: tuple[str, ...]
    spec: str

    @property
    def text(self) -> str:
        unknown = self.spec.count(FILL_IN)
        todo = "" if not unknown else f"\nlines to fill in: {unknown}, marked {FILL_IN}"
        return "\n".join(self.lines) + todo


def table(name: str, values: Mapping[str, Any], remarks: Mapping[str, str] | None = None) -> str:
    """A table of TOML; a note stands behind the value of its key, a note without a value in a line of its own."""
    remarks = remarks or {}
    lines = [f"[{name}]"]
    for key, value in values.items():
        lines.append(f"{key} = {toml(value)}" + (f"  # {remarks[key]}" if key in remarks else ""))
    lines += [f"# {key}: {remark}" for key, remark in remarks.items() if key not in values]
    return "\n".join(lines) + "\n"


def tensor_tables(name: str, tensors: Iterable[tuple[str, str, Sequence[int | str]]]) -> str:
    """An array of tables, one for each tensor: name, dtype and axes."""
    return "".join(
        f"[[{name}]]\nname = {toml(tensor)}\ndtype = {toml(dtype)}\nshape = {toml(list(axes))}\n"
        for tensor, dtype, axes in tensors
    )


def axis_table(axes: Mapping[str, tuple[int, int]], *, is_guess: bool) -> str:
    """The bounds of free axes."""
    if not axes:
        return ""
    remark = f"{FILL_IN[2:]} the smallest and the largest size that is served"
    bounds = {_key(axis): list(bound) for axis, bound in axes.items()}
    remarks = dict.fromkeys(bounds, remark) if is_guess else {}
    return (
        "\n" + table("limits.axes", bounds, remarks) + f"# [limits.multiple_of] {next(iter(bounds))} = 4: {MULTIPLES}\n"
    )


def _key(name: str) -> str:
    """A key of TOML: as it is, or quoted."""
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else toml(name)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return str(value)
