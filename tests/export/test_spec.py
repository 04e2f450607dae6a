"""A spec has few keys, and a mistake in it is one sentence with the file, the table and the key."""

import tomllib
from pathlib import Path

import pytest

from export.spec import ImagePart, LabelsPart, SpecError, TextPart, parse_spec, read_spec

IMAGE = 'reader = { kind = "image", height = 28, width = 28 }'
COLUMN = '{ name = "a", kind = "number" }'
TEN = 'head = { kind = "labels", labels = 10 }'


def parse(content: str, folder: Path = Path()) -> object:
    return parse_spec(tomllib.loads(content), folder / "spec.toml")


def test_a_plain_classifier_needs_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(f"{IMAGE}\n{TEN}\n")
    spec = read_spec(path)
    assert isinstance(spec.reader, ImagePart)
    assert (spec.reader.mode, spec.reader.layout, spec.reader.scale) == ("RGB", "NCHW", 1 / 255)
    assert isinstance(spec.head, LabelsPart)
    assert spec.head.labels == tuple("0123456789")
    assert (spec.limits.max_items, spec.tolerance.atol, spec.invariance) == (64, 1e-5, "bitwise")


def test_labels_and_tokenizer_are_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("bad\ngood\n")
    (tmp_path / "tokenizer.json").write_text("{}")
    path = tmp_path / "spec.toml"
    path.write_text('reader = { kind = "text" }\nhead = { kind = "labels", labels = "labels.txt" }\n')
    spec = read_spec(path)
    assert isinstance(spec.reader, TextPart)
    assert spec.reader.tokenizer == tmp_path / "tokenizer.json"
    assert getattr(spec.head, "labels", None) == ("bad", "good")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            f'reader = {{ kind = "image", heigth = 28, width = 28 }}\n{TEN}',
            "[reader] has no key 'heigth'; did you mean 'height'?",
        ),
        (f'nam = "x"\n{IMAGE}\n{TEN}', "there is no key 'nam'; did you mean 'name'?"),
        (f'{IMAGE}\n{TEN}\nname = "A B"', "name is 'A B'"),
        (f'reader = {{ kind = "imge" }}\n{TEN}', "[reader] kind is 'imge'; did you mean 'image'?"),
        (f"reader = {{ height = 28 }}\n{TEN}", "[reader] lacks the key 'kind'; allowed are image, series"),
        (f'reader = {{ kind = "image", height = 28 }}\n{TEN}', "[reader] lacks the key 'width'"),
        (IMAGE, "the table [head] is missing"),
        (f'reader = {{ kind = "image", height = 28, width = "a" }}\n{TEN}', "[reader] width is 'a'"),
        (
            f'reader = {{ kind = "image", height = 28, width = 28, mode = "X" }}\n{TEN}',
            "[reader] mode is 'X': expected 'L' or 'RGB'",
        ),
        (
            f'reader = {{ kind = "image", height = 28, width = 28, mean = [1, 2] }}\n{TEN}',
            "[reader] mean has 2 numbers, expected one or 3 for mode RGB",
        ),
        (f'{IMAGE}\nhead = {{ kind = "labels", labels = "f.txt" }}', "[head] labels: there is no file"),
        (f'{IMAGE}\nhead = {{ kind = "labels", labels = ["a", "a"] }}', "[head] labels: the label 'a' is there twice"),
        (f'reader = {{ kind = "text" }}\n{TEN}', "[reader] tokenizer: there is no file"),
        (
            f'reader = {{ kind = "table", columns = [{{ name = "a", kind = "number", hihg = 3 }}] }}\n{TEN}',
            "[reader.columns[0]] has no key 'hihg'; did you mean 'high'?",
        ),
        (
            f'reader = {{ kind = "image", height = 8, width = 8, resize = {{ shortest = 3 }} }}\n{TEN}',
            "[reader.resize] has no key 'shortest'; did you mean 'shortest_edge'?",
        ),
        (f'{IMAGE}\n{TEN}\nlimits = {{ axes = {{ height = [3, "a"] }} }}', "[limits.axes] height[1] is 'a'"),
        (
            f'{IMAGE}\nhead = {{ kind = "values", names = ["a", "b"], units = ["m"] }}',
            "[head] units has 1 entries, expected 2",
        ),
        (f'{IMAGE}\nhead = {{ kind = "labels", labels = ["a", ""] }}', "[head] labels: label 1 is empty"),
        (f"{IMAGE}\n{TEN}\nlimits = {{ axes = {{ x = [9, 3] }} }}", "[limits.axes] x: [9, 3] is no range"),
        (f"{IMAGE}\n{TEN}\nlimits = {{ axes = {{ x = [1, 2000000] }} }}", "[limits.axes] x: [1, 2000000] is no range"),
        (
            f'reader = {{ kind = "image", height = [9, 3], width = 28 }}\n{TEN}',
            "[reader] height: [9, 3] is no range, expected [smallest, largest] of at most 1048576",
        ),
        (
            f'reader = {{ kind = "table", columns = [{COLUMN}, {COLUMN}] }}\n{TEN}',
            "[reader] columns: the name 'a' is there twice",
        ),
        (f'{IMAGE}\nhead = {{ kind = "values", names = ["a", "a"] }}', "[head] names: the name 'a' is there twice"),
        (
            f'{IMAGE}\n[head]\nkind = "tensors"\n'
            + "[[head.outputs]]\nname = 'y'\ndtype = 'int8'\nshape = ['batch']\n" * 2,
            "[head] outputs: the name 'y' is there twice",
        ),
        (
            f'{IMAGE}\nhead = {{ kind = "labels", labels = 3, activation = "relu" }}',
            "[head] activation is 'relu'",
        ),
    ],
)
def test_a_mistake_is_one_sentence(content: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        parse(content, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'spec.toml'}: {sentence}")
    assert "\n" not in str(error.value)


def test_an_absent_spec_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"No such file.*python -m export inspect MODEL --output .*spec\.toml"):
        read_spec(tmp_path / "spec.toml")


def test_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    for content in (b"reader = {", b"\xff", b"a = " + b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(SpecError, match="no TOML: "):
            read_spec(path)
