import ast
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from training.data import docstrings

Parts = dict[str, tuple[list[str], list[int]]]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return docstrings.split(seed=1)


def test_every_topic_is_in_every_part(parts: Parts) -> None:
    for name, least in (("train", 200), ("validation", 20), ("test", 40)):
        texts, labels = parts[name]
        assert len(texts) == len(labels)
        assert np.bincount(labels, minlength=4).min() >= least, name


def test_paragraphs_are_the_librarys_own() -> None:
    library = Path(sysconfig.get_path("stdlib"))
    module = ast.parse((library / "socketserver.py").read_bytes())
    mixin = next(node for node in module.body if getattr(node, "name", "") == "ThreadingMixIn")
    assert isinstance(mixin, ast.ClassDef)
    assert ast.get_docstring(mixin) in docstrings.paragraphs()["internet"]["socketserver.py:ThreadingMixIn"]


def test_held_back_paragraphs_are_new(parts: Parts) -> None:
    def phrases(text: str) -> set[str]:
        words = docstrings.re.findall(r"\w+", text.lower())
        return {" ".join(words[i : i + 4]) for i in range(max(1, len(words) - 3))}

    learned = set().union(*(phrases(text) for text in parts["train"][0]))
    for name in ("validation", "test"):
        worst = max(len(phrases(text) & learned) / len(phrases(text)) for text in parts[name][0])
        assert worst <= 0.75, name  # at most half of all phrases, repeated ones counted


def test_the_seed_decides(parts: Parts) -> None:
    assert docstrings.split(seed=1) == parts
