"""Paragraphs of the standard library's docstrings, labelled with the topic of their package.

The texts come from the running Python: no download is needed, and releases of Python differ slightly. All paragraphs of
a source file are in the same split. A validation or test paragraph is dropped when more than half of its phrases also
occur in the training split.
"""

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TOPICS = {
    "concurrency": (
        "_threading_local asyncio asyncore concurrent contextvars multiprocessing queue sched selectors signal "
        "subprocess threading"
    ),
    "graphics": "colorsys curses tkinter turtle turtledemo",
    "internet": (
        "cgi email ftplib html http imaplib ipaddress mailbox mimetypes nntplib poplib smtpd smtplib socket "
        "socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc"
    ),
    "numbers": (
        "_pydatetime _pydecimal _strptime bisect calendar datetime fractions heapq numbers random secrets statistics "
        "zoneinfo"
    ),
}

# The paragraphs of each source file, whose name is its path in the library: package/file.py.
Paragraphs = dict[str, list[str]]

# A file with a larger share of its topic's paragraphs is always in the training split.
MAX_FILE_SHARE = 0.2


def paragraphs() -> dict[str, Paragraphs]:
    """The paragraphs of each topic by source file: those of at least 40 letters, without duplicates."""
    library = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    found: dict[str, Paragraphs] = {}
    for topic, packages in TOPICS.items():
        found[topic] = {}
        for path in _modules(library, packages.split()):
            file = path.relative_to(library).as_posix()
            for text in _docstrings(path.read_bytes()):
                for paragraph in re.split(r"\n\s*\n", text):
                    line = " ".join(paragraph.split())
                    letters = re.sub(r"[^a-z]", "", line.lower())
                    if len(letters) >= 40 and not line.startswith(">>>") and letters not in seen:
                        seen.add(letters)
                        found[topic].setdefault(file, []).append(line)
    return found


def _modules(library: Path, packages: list[str]) -> Iterator[Path]:
    for package in packages:
        yield from (path for path in [library / f"{package}.py"] if path.is_file())
        yield from (path for path in sorted((library / package).rglob("*.py")) if "test" not in path.parts)


def _docstrings(content: bytes) -> Iterator[str]:
    """The docstrings of a module and of all its classes and functions."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def split(*, seed: int) -> dict[str, tuple[list[str], list[int]]]:
    """Texts and topic numbers of "train", "validation" and "test": about 75, 10 and 15 % of every topic."""
    rng = np.random.default_rng(seed)
    parts: dict[str, tuple[list[str], list[int]]] = {"train": ([], []), "validation": ([], []), "test": ([], [])}
    for label, by_file in enumerate(paragraphs().values()):
        total = sum(map(len, by_file.values()))
        num_held_out = 0
        for file in rng.permutation(sorted(by_file)):
            texts = by_file[str(file)]
            large = len(texts) > total * MAX_FILE_SHARE
            if large or num_held_out > total * 0.25:
                part = "train"
            else:
                part = "test" if num_held_out <= total * 0.15 else "validation"
            num_held_out += 0 if large else len(texts)
            parts[part][0].extend(texts)
            parts[part][1].extend([label] * len(texts))
    train_phrases = {phrase for text in parts["train"][0] for phrase in _phrases(text)}
    for part in ("validation", "test"):
        texts, labels = parts[part]
        known = [np.mean([phrase in train_phrases for phrase in _phrases(text)]) for text in texts]
        new = [i for i, share in enumerate(known) if share <= 0.5]
        parts[part] = [texts[i] for i in new], [labels[i] for i in new]
    return parts


def _phrases(text: str) -> list[tuple[str, ...]]:
    """All sequences of four consecutive words."""
    words = re.findall(r"\w+", text.lower())
    return [tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3))]
