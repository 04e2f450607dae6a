"""Examples come from a file or are made from a seed; either way they are items that the model takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import ExportError
from export.sources.huggingface.examples import read_pictures, read_texts, text_split, window_split
from export.sources.huggingface.tokenizer import FolderTokenizer, read_tokenizer
from service.contract.readers import ImageReader, Resize
from tests.export.sources.huggingface.folders import bert, characters, pictures, save, wordpiece
from training.recipe import IGNORE_INDEX

MAX_STEPS = 20
READER = ImageReader(height=16, width=16, mode="RGB", resize=Resize(size=(16, 16)))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    return read_tokenizer(save(tmp_path_factory.mktemp("bert"), bert("BertModel"), wordpiece()), cuts=True)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    return read_tokenizer(save(tmp_path_factory.mktemp("gpt2"), bert("BertModel"), characters()), cuts=False)


def test_made_texts_have_words_of_the_tokenizer_and_every_length(tokenizer: FolderTokenizer) -> None:
    texts, origin = read_texts(None, tokenizer, MAX_STEPS)
    assert texts == read_texts(None, tokenizer, MAX_STEPS)[0]
    assert origin.sha256 is None
    assert "made of the tokenizer's own words" in origin.note
    split = text_split(texts, tokenizer, MAX_STEPS)
    lengths = split.inputs["lengths"]
    assert lengths.min() == 3
    assert MAX_STEPS - 2 <= lengths.max() <= MAX_STEPS
    assert not (split.inputs["ids"] == 1).any(), "no unknown word"
    assert len(set(texts)) == len(texts) > 40


def test_texts_of_a_file_are_cut_with_their_special_tokens(tokenizer: FolderTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("oak elm", "elm " * 50)))
    texts, origin = read_texts(path, tokenizer, MAX_STEPS)
    split = text_split(texts, tokenizer, MAX_STEPS)
    assert split.inputs["lengths"].tolist() == [4, MAX_STEPS]
    assert split.inputs["ids"][1, -1] == 3
    assert origin.name == "examples.jsonl"
    assert origin.sha256 is not None
    assert origin.note == "The gates used the 2 texts of examples.jsonl."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no line"),
        ('{"text": "oak"}\n{"txt": "elm"}', r'line 2: expected a JSON object with "text"'),
        ("oak", "line 1: expected a JSON object"),
        ('{"text": ""}', "expected a text that is not empty"),
        ('{"text": 3}', "text is 3, expected a text"),
    ],
)
def test_a_line_without_a_text_is_named(content: str, reason: str, tokenizer: FolderTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(content)
    with pytest.raises(ExportError, match=reason):
        read_texts(path, tokenizer, MAX_STEPS)


def test_an_absent_file_is_named(tokenizer: FolderTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"absent.jsonl: expected a file of JSON lines"):
        read_texts(tmp_path / "absent.jsonl", tokenizer, MAX_STEPS)


def test_a_text_without_tokens_is_refused(letters: FolderTokenizer) -> None:
    with pytest.raises(ExportError, match="gives no token for the example ''"):
        text_split([""], letters, MAX_STEPS)


def test_the_target_of_a_token_is_the_next_one(letters: FolderTokenizer) -> None:
    split = window_split(("abcd", "efghij"), letters, 4)
    targets = split.targets.ravel()
    assert split.texts == ("abcd\nefghij",)
    [ids] = letters.encode(split.texts, 100)
    assert targets[targets != IGNORE_INDEX].tolist() == ids
    assert split.inputs["ids"].shape == split.targets.shape == (3, 4)
    assert split.inputs["ids"].ravel()[1 : len(ids)].tolist() == ids[:-1]


def test_long_texts_are_cut(letters: FolderTokenizer) -> None:
    split = window_split(["abcdefghij"] * 500, letters, 16)
    assert (split.targets != IGNORE_INDEX).sum() == len(split.texts[0]) == 32 * 16
    assert len(split) == 32


def test_made_pictures_differ_and_fill_the_reader() -> None:
    split, origin = read_pictures(None, READER)
    images = split.inputs["images"]
    assert images.shape[1:] == (16, 16, 3)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert 60 < images.mean() < 200
    assert "export made" in origin.note
    grey, _ = read_pictures(None, READER.model_copy(update={"mode": "L"}))
    assert grey.inputs["images"].shape[1:] == (16, 16)


def test_pictures_of_a_folder_are_resized(tmp_path: Path) -> None:
    for number, picture in enumerate(pictures(2)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    split, origin = read_pictures(tmp_path, READER)
    expected = Image.fromarray(pictures(2)[1]).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(split.inputs["images"][1], np.array(expected))
    assert origin.note.startswith("The gates used the 2 pictures of")


def test_pictures_of_a_folder_are_turned_as_they_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for number, picture in enumerate(pictures(2)):
        Image.fromarray(picture).transpose(Image.Transpose.ROTATE_180).save(tmp_path / f"{number}.png", exif=exif)
    split, _ = read_pictures(tmp_path, READER)
    expected = Image.fromarray(pictures(2)[1]).resize((16, 16), Image.Resampling.BILINEAR)
    assert any(np.array_equal(each, np.asarray(expected)) for each in split.inputs["images"])


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds no picture"):
        read_pictures(tmp_path, READER)
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(ExportError, match=r"broken.png: no picture that Pillow reads"):
        read_pictures(tmp_path, READER)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "broken.png")
    with pytest.raises(ExportError, match="is 52x40, the model takes 16x16"):
        read_pictures(tmp_path, READER.model_copy(update={"resize": None}))
