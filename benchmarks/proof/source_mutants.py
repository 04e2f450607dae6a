"""Mutants of a module: its source with one operator, constant or statement changed.

The changes are those of mutmut, and three of statements that mutmut does not make. A seed selects the mutants of a
module, each at another place, so a run can be repeated. Prose is not changed: messages and calls of the logger.
"""

import difflib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import libcst as cst
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators, operator_string
from mutmut.mutation.pragma_handling import IgnoredCode


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of the module at `path`."""

    path: str
    original: str
    source: str

    @property
    def before(self) -> str:
        """The lines that the change removes, without indentation."""
        return self._lines("- ")

    @property
    def after(self) -> str:
        """The lines that the change adds, without indentation."""
        return self._lines("+ ")

    @property
    def diff(self) -> str:
        lines = difflib.unified_diff(
            self.original.splitlines(), self.source.splitlines(), self.path, self.path, lineterm="", n=1
        )
        return "\n".join(lines)

    def _lines(self, sign: str) -> str:
        lines = difflib.ndiff(self.original.splitlines(), self.source.splitlines())
        return "\n".join(line[2:].strip() for line in lines if line.startswith(sign))


def sample_mutants(path: str, source: str, *, count: int, seed: int) -> list[Mutant]:
    """Up to `count` mutants, each of another node of the syntax tree."""
    rng = random.Random(f"{seed}:{path}")
    collector = _Mutations(_OPERATORS, IgnoredCode(set(), set(), set()))
    module = cst.MetadataWrapper(cst.parse_module(source)).visit(collector)
    by_node: dict[int, list[Mutation]] = {}
    for mutation in collector.mutations:
        by_node.setdefault(id(mutation.original_node), []).append(mutation)
    groups = list(by_node.values())
    mutants: list[Mutant] = []
    for mutations in rng.sample(groups, len(groups)):
        chosen = rng.choice(mutations)
        mutated = module.deep_replace(chosen.original_node, chosen.mutated_node)
        assert isinstance(mutated, cst.Module)
        if len(mutants) == count:
            break
        if mutated.code != source:
            mutants.append(Mutant(path=path, original=source, source=mutated.code))
    return mutants


class _Mutations(MutationVisitor):
    """Also changes decorated functions, which mutmut cannot; does not change calls of the logger."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            receiver = node.func.value
            if isinstance(receiver, cst.Name) and receiver.value.lower() in ("log", "logger"):
                return True
        return super()._skip_node_and_children(node)


def _change_word(node: cst.BaseString) -> Iterable[cst.BaseString]:
    """The changes of a string, unless it is prose."""
    is_prose = isinstance(node, cst.SimpleString) and " " in node.value
    return [] if is_prose else operator_string(node)


def _remove_statement(node: cst.Expr | cst.Raise) -> Iterator[cst.Pass]:
    if not isinstance(node, cst.Expr) or isinstance(node.value, cst.Call | cst.Await):
        yield cst.Pass()


def _return_nothing(node: cst.Return) -> Iterator[cst.Return]:
    # In a condition, None is what False is.
    if node.value is not None and not (isinstance(node.value, cst.Name) and node.value.value in ("False", "None")):
        yield cst.Return(value=cst.Name("None"))


_OPERATORS: list[tuple[type, Any]] = [
    *((kind, _change_word if change is operator_string else change) for kind, change in mutation_operators),
    (cst.Expr, _remove_statement),
    (cst.Raise, _remove_statement),
    (cst.Return, _return_nothing),
]
