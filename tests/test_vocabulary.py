"""Names are the field's standard terms: words that earlier revisions invented, or used loosely, name nothing.

A word that is ordinary English may stand in a sentence; it may not name a module, function, class, parameter, variable
or attribute.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT)
    for package in ("training", "export", "service", "ekiben", "deploy", "benchmarks", "tests")
    for path in (ROOT / package).rglob("*.py")
)
WORDS = """
Gate Demand knock stay_away_s forget judge judged crowded Visitor visitor due_s returns
Appointments appointments make keep obedience USED USED_BY_RETURNERS LINE CLOSED PLACES
Admission begins ends learn stretch foretell foretold_s room Seats seats Alarms alarms Call Schedule
Batcher batcher Piece piece pieces fits note note_alone take gone settled missing
is_quiet run_alone LONELY LOOK_EVERY go_on tell stuck_at generating patient_runner until at_most at_last
Layout canonical Doubled Filled Widened alone moves Moved trimmed
Keeper keeper follow_all sweep hurry give_up in_trouble turn_of
Catalog Entry shown later swept retired wanted disk look Found Stamp
heartbeat Beat bounded HungError Transcript transcript give_back return_freely
Door door Front front InFront Work verdict why Watch Page Dialect dialect Host came announced Reply exchange
foreign Translated Traffic Sharing leave Ask understand kept below
LEAVE BREATH_S RESTLESS_S OPEN_AT_LAST_S END_S SWITCH_S find wrong refuse flood portions least most
ahead Fate HELD tapered Want own plain Cut forget_reader
Asked served draft drafts chain crowd guests tagged drawn referee
agree thin follow descend forget_words stale look_back waves CALM LOUD SURE
rivals ways floors torment YARDSTICKS alike together told
"""
REPLACED = frozenset(WORDS.split())
SPECIAL = {"__missing__"}  # a method that Python calls by this name
# Fields of stored formats: a data set's note on its card, and the columns that scoring copies (`--keep`).
STORED = {"training": {"note"}, "export": {"note"}, "tests/documents.py": {"note"}, "service/scoring": {"keep"}}


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the module gives to something, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_no_replaced_word_names_anything(source: Path) -> None:
    found = [
        f"{source}:{line}: {name}"
        for name, line in names(ast.parse((ROOT / source).read_text()))
        if name.strip("_") in REPLACED
        and name not in SPECIAL
        and not any(name in STORED[place] for place in STORED if str(source).startswith(place))
    ]
    found += [f"{source}: module {part}" for part in source.with_suffix("").parts if part in REPLACED]
    assert not found, "see docs/architecture.md for the terms"
