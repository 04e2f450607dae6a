"""Conditions on input columns, `age > 30 and city == 'Rome'`, in a small part of Python's grammar.

Names of columns and paths, `col('any name')`, numbers, texts, true, false and null; == != < <= > >= in, not in, is
null, is not null, and, or, not. As in SQL, a comparison with null is neither true nor false. Numbers are compared
exactly.
"""

import ast
import functools
import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from service.scoring.input.rows import Column
from service.scoring.input.schema import unwrapped
from service.scoring.job import ScoringError

OPERATORS: dict[type[ast.cmpop], tuple[Callable[[Any, Any], Any], str, type[ast.cmpop]]] = {
    ast.Eq: (operator.eq, "equal", ast.Eq),
    ast.NotEq: (operator.ne, "not_equal", ast.NotEq),
    ast.Lt: (operator.lt, "less", ast.Gt),
    ast.LtE: (operator.le, "less_equal", ast.GtE),
    ast.Gt: (operator.gt, "greater", ast.Lt),
    ast.GtE: (operator.ge, "greater_equal", ast.LtE),
}
WORDS = {"null": None, "true": True, "false": False}
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
MAX_CHARS = 10_000
Literal: TypeAlias = bool | int | float | str | None


class Condition:
    """`columns` are the names and paths that it reads. Raises ScoringError if the text is no condition."""

    def __init__(self, text: str) -> None:
        self._text, self.columns = text, list[str]()
        try:
            if len(text) > MAX_CHARS:
                raise SyntaxError(f"longer than {MAX_CHARS} characters")
            self._root = ast.parse(text.strip(), mode="eval").body
            self.evaluate(lambda name: self.columns.append(name) or pa.nulls(0))  # type: ignore[func-returns-value]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else error
            raise ScoringError(f"--where {text}: no condition such as age > 30 and city == 'Rome': {reason}") from None
        self.columns = list(dict.fromkeys(self.columns))

    def evaluate(self, column: Callable[[str], Column]) -> tuple[pa.BooleanArray, dict[int, str]]:
        """Whether each row fulfils the condition (null if that is unknown), and the faults of rows with other values.

        Raises ScoringError if no value of a column could be compared.
        """
        faults = dict[int, str]()
        return self._evaluate(self._root, column, faults), faults

    def check(self, schema: Mapping[str, pa.DataType]) -> None:
        """Raise ScoringError unless columns of these types can be compared."""
        self.evaluate(lambda name: pa.array([], schema[name]))

    def _evaluate(self, node: ast.expr, column: Callable[[str], Column], faults: dict[int, str]) -> pa.BooleanArray:
        match node:
            case ast.BoolOp(op=op, values=values):
                join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                return functools.reduce(join, [self._evaluate(value, column, faults) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return pc.invert(self._evaluate(operand, column, faults))
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others[:-1]], ops, others, strict=True)
                compared = [self._compare(*pair, column, faults) for pair in pairs]
                return functools.reduce(pc.and_kleene, compared)
        name = _name(node)
        if name is None:
            raise SyntaxError(f"not understood: {ast.unparse(node)}")
        return self._leaf(name, column(name), ast.Eq, True, faults)

    def _compare(
        self, left: ast.expr, op: ast.cmpop, right: ast.expr, column: Callable[[str], Column], faults: dict[int, str]
    ) -> pa.BooleanArray:
        kind = type(op)
        name = _name(left)
        if name is None and kind in OPERATORS:
            left, right, kind = right, left, OPERATORS[kind][2]
            name = _name(left)
        if name is None or _name(right) is not None:
            raise SyntaxError(f"expected a column and a value: {ast.unparse(ast.Compare(left, [op], [right]))}")
        if kind in {ast.Is, ast.IsNot}:
            if _value(right) is not None:
                raise SyntaxError("only null follows `is`")
            null = _is_null(column(name))
            return null if kind is ast.Is else pc.invert(null)
        values = column(name)
        if kind in OPERATORS:
            return self._leaf(name, values, kind, _value(right), faults)
        items = right.elts if isinstance(right, ast.Tuple | ast.List) else [right]
        if not items:
            raise SyntaxError("nothing is in an empty list")
        found = [self._leaf(name, values, ast.Eq, _value(item), faults) for item in items]
        is_in = functools.reduce(pc.or_kleene, found)
        return is_in if kind is ast.In else pc.invert(is_in)

    def _leaf(
        self, name: str, column: Column, kind: type[ast.cmpop], value: Literal, faults: dict[int, str]
    ) -> pa.BooleanArray:
        """Compare a column with a value."""
        if value is None:
            raise SyntaxError("a comparison with null is never true: write `is null`")
        compare, function, _ = OPERATORS[kind]
        if isinstance(column, np.ndarray) and column.ndim == 1:
            column = pa.array(column)
        if isinstance(column, pa.Array):
            column = unwrapped(column)
            if types.is_null(column.type):
                return pa.nulls(len(column), pa.bool_())
            scalar = self._scalar(name, column.type, value)
            if scalar is not None:
                return pc.call_function(function, [column, scalar])
            column = column.to_pylist()
        if isinstance(column, np.ndarray):
            raise self._mismatch(name, "an array", value)
        results = list[bool | None]()
        for i, item in enumerate(column):
            read = _read(item, value)
            if read is NotImplemented:
                faults[i] = f"column {name!r}: {item!r:.40} cannot be compared with {value!r:.40}"
                read = None
            literal = Decimal(str(value)) if isinstance(read, Decimal) else value
            results.append(None if read is None else compare(read, literal))
        return pa.array(results, pa.bool_())

    def _scalar(self, name: str, kind: pa.DataType, value: Any) -> pa.Scalar | None:
        """The value in the type of the column; None if only Python compares them exactly."""
        is_number, is_text = type(value) in {int, float}, _is_text(kind)
        if (is_text and isinstance(value, str)) or (types.is_boolean(kind) and isinstance(value, bool)):
            return pa.scalar(value, kind)
        if types.is_temporal(kind) and isinstance(value, str):
            try:
                return pa.scalar(value).cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ScoringError(f"--where {self._text}: column {name!r} is {kind}: {error}") from error
        if types.is_floating(kind) and is_number and _is_float(value):
            return pa.scalar(float(value), kind)
        if types.is_integer(kind) and type(value) is int:
            try:
                return pa.scalar(value, kind)
            except (pa.ArrowInvalid, OverflowError):
                return None
        if (is_number and (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))) or (
            is_text and not isinstance(value, str)
        ):
            return None
        raise self._mismatch(name, str(kind), value)

    def _mismatch(self, name: str, kind: str, value: Any) -> ScoringError:
        return ScoringError(
            f"--where {self._text}: column {name!r} is {kind} and cannot be compared with {value!r:.40}"
        )


@functools.lru_cache(maxsize=8)
def condition_of(text: str | None) -> Condition | None:
    """The condition of a job; None if it has none."""
    return None if text is None else Condition(text)


def condition_columns(text: str | None) -> list[str]:
    condition = condition_of(text)
    return [] if condition is None else condition.columns


def _name(node: ast.expr) -> str | None:
    """The column that an operand names; None if it is a value."""
    match node:
        case ast.Name(id=name):
            return None if name in WORDS else name
        case ast.Attribute(value=outer, attr=name):
            inner = _name(outer)
            return None if inner is None else f"{inner}.{name}"
        case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
            return name
    return None


def _value(node: ast.expr) -> Literal:
    match node:
        case ast.Constant(value=value) if value is None or type(value) in {bool, int, float, str}:
            return value  # type: ignore[return-value]
        case ast.Name(id=name) if name in WORDS:
            return WORDS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)) if type(value) in {int, float}:
            return -value  # type: ignore[operator,return-value]
    raise SyntaxError(f"expected a number, a text, true, false or null: {ast.unparse(node)}")


def _read(item: Any, value: Literal) -> Any:
    """An item as it is compared with the value; None if it is missing, NotImplemented if it is of another kind."""
    if item is None or (isinstance(value, str) and isinstance(item, str)):
        return item
    if isinstance(value, str):
        return NotImplemented
    text = item.strip() if isinstance(item, str) else None
    if text == "":
        return None
    if isinstance(value, bool):
        known = {"true": True, "false": False}
        return item if isinstance(item, bool) else known.get(text.lower(), NotImplemented) if text else NotImplemented
    if text is not None and NUMBER.fullmatch(text):
        return float(text) if {*"._eE"} & {*text} else int(text)
    return item if type(item) in {int, float, Decimal} else NotImplemented


def _is_null(column: Column) -> pa.BooleanArray:
    if isinstance(column, pa.Array):
        return pc.is_null(column)
    return pa.array([item is None for item in column], pa.bool_())


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_float(value: float) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False
