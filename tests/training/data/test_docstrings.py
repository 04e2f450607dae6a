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


def test_every_split_has_every_topic(parts: Parts) -> None:
    for name, minimum in (("train", 200), ("validation", 20), ("test", 40)):
        texts, labels = parts[name]
        assert len(texts) == len(labels)
        assert np.bincount(labels, minlength=4).min() >= minimum, name


def test_paragraphs_come_from_the_standard_library() -> None:
    library = Path(sysconfig.get_path("stdlib"))
    module = ast.parse((library / "socketserver.py").read_bytes())
    mixin = next(node for node in module.body if getattr(node, "name", "") == "ThreadingMixIn")
    assert isinstance(mixin, ast.ClassDef)
    assert ast.get_docstring(mixin) in docstrings.paragraphs()["internet"]["socketserver.py"]


def test_no_source_file_is_in_two_splits(parts: Parts) -> None:
    split_of = {text: name for name, (texts, _) in parts.items() for text in texts}
    for by_file in docstrings.paragraphs().values():
        for file, texts in by_file.items():
            assert len({split_of[text] for text in texts if text in split_of}) <= 1, file


def test_held_out_paragraphs_differ_from_training_paragraphs(parts: Parts) -> None:
    def phrases(text: str) -> set[str]:
        words = docstrings.re.findall(r"\w+", text.lower())
        return {" ".join(words[i : i + 4]) for i in range(max(1, len(words) - 3))}

    train_phrases = set().union(*(phrases(text) for text in parts["train"][0]))
    for name in ("validation", "test"):
        largest_overlap = max(len(phrases(text) & train_phrases) / len(phrases(text)) for text in parts[name][0])
        # The limit is half of all phrases; without duplicates, as here, the share can be larger.
        assert largest_overlap <= 0.75, name


def test_split_depends_on_the_seed_alone(parts: Parts) -> None:
    assert docstrings.split(seed=1) == parts
