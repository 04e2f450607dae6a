"""Paragraphs of the standard library's docstrings, labelled by what their package is for.

The text of the Python that runs, so it needs no network and differs a little between Python's releases. A top-level
class or function keeps all its paragraphs on one side of every cut, and a held-back paragraph of which more than half
was also said on the other side is dropped.
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
Paragraphs = dict[str, list[str]]  # of one top-level definition, named package/file.py:Definition


def paragraphs() -> dict[str, Paragraphs]:
    """For each topic its paragraphs of at least 40 characters, each said once, by definition."""
    library = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    found: dict[str, Paragraphs] = {}
    for topic, packages in TOPICS.items():
        found[topic] = {}
        for path in _modules(library, packages.split()):
            for owner, text in _docstrings(path.relative_to(library).as_posix(), path.read_bytes()):
                for paragraph in re.split(r"\n\s*\n", text):
                    line = " ".join(paragraph.split())
                    plain = re.sub(r"[^a-z]", "", line.lower())
                    if len(plain) >= 40 and not line.startswith(">>>") and plain not in seen:
                        seen.add(plain)
                        found[topic].setdefault(owner, []).append(line)
    return found


def _modules(library: Path, packages: list[str]) -> Iterator[Path]:
    for package in packages:
        yield from (path for path in [library / f"{package}.py"] if path.is_file())
        yield from (path for path in sorted((library / package).rglob("*.py")) if "test" not in path.parts)


def _docstrings(module: str, content: bytes) -> Iterator[tuple[str, str]]:
    """Pairs (owner, docstring): the module's own, then those inside each top-level definition, which owns them."""
    tree = ast.parse(content)
    yield module, ast.get_docstring(tree) or ""
    for definition in tree.body:
        for node in ast.walk(definition):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}:{getattr(definition, 'name', '')}", ast.get_docstring(node) or ""


def split(*, seed: int) -> dict[str, tuple[list[str], list[int]]]:
    """Texts and topic numbers of "train", "validation" and "test": about 75, 10 and 15 % of every topic."""
    rng = np.random.default_rng(seed)
    parts: dict[str, tuple[list[str], list[int]]] = {"train": ([], []), "validation": ([], []), "test": ([], [])}
    for label, by_owner in enumerate(paragraphs().values()):
        total = sum(map(len, by_owner.values()))
        taken = 0
        for owner in rng.permutation(sorted(by_owner)):
            texts = by_owner[str(owner)]
            large = len(texts) > total * 0.04  # a held-back part of one class alone would say little
            part = "train" if large or taken > total * 0.25 else "test" if taken <= total * 0.15 else "validation"
            taken += 0 if large else len(texts)
            parts[part][0].extend(texts)
            parts[part][1].extend([label] * len(texts))
    said = {phrase for text in parts["train"][0] for phrase in _phrases(text)}
    for part in ("validation", "test"):
        texts, labels = parts[part]
        fresh = [i for i, text in enumerate(texts) if np.mean([phrase in said for phrase in _phrases(text)]) <= 0.5]
        parts[part] = [texts[i] for i in fresh], [labels[i] for i in fresh]
    return parts


def _phrases(text: str) -> list[tuple[str, ...]]:
    """Runs of four words."""
    words = re.findall(r"\w+", text.lower())
    return [tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3))]
