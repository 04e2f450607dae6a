"""Which files below a folder a pattern names; the meaning is the same for local folders and object stores.

`*`, `?` and `[...]` stand for characters of one name and `**` for any number of folders. A pattern that names a folder
names every file below it. Names that begin with "." or "_" are never data, whatever the pattern is.
"""

import re
from fnmatch import translate

WILDCARDS = re.compile(r"[*?[]")
# The folder that marks the output of a scoring job, which is not input.
LEDGER_FOLDER = "_ledger"


def is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


class Pattern:
    """The part of a path from its first wildcard on; the empty pattern names a whole folder.

    A state is the set of parts that the names read so far can have reached.
    """

    def __init__(self, text: str) -> None:
        parts = text.split("/") if text else []
        self._parts = [None if part == "**" else re.compile(translate(part)) for part in parts]

    @property
    def start(self) -> frozenset[int]:
        return self._closed({0})

    def advance(self, state: frozenset[int], name: str) -> frozenset[int]:
        """The state after one more name; empty if nothing below it can match."""
        if is_hidden(name):
            return frozenset()
        reached = set()
        for i in state:
            part = self._parts[i] if i < len(self._parts) else None
            if part is None:
                reached.add(i)
            elif part.match(name):
                reached.add(i + 1)
        return self._closed(reached)

    def accepts(self, state: frozenset[int]) -> bool:
        return len(self._parts) in state

    def is_deep(self, state: frozenset[int]) -> bool:
        """Whether files at any depth can match."""
        return any(i == len(self._parts) or self._parts[i] is None for i in state)

    def _closed(self, state: set[int]) -> frozenset[int]:
        """`**` stands for no folder as well."""
        for i in range(len(self._parts)):
            if i in state and self._parts[i] is None:
                state.add(i + 1)
        return frozenset(state)


def split_pattern(path: str) -> tuple[str, str]:
    """The fixed folder of a path and the pattern below it, which is empty if the path has no wildcard."""
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if WILDCARDS.search(part)), len(parts))
    return "/".join(parts[:first]) or ("/" if path.startswith("/") else ""), "/".join(parts[first:])
