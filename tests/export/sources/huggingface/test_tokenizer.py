"""The content for the bundle gives the ids of the folder's own tokenizer, and neither cuts nor pads by itself."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from export.errors import ExportError
from export.sources.huggingface.tokenizer import read_tokenizer
from service.engine.sessions.tokenizer import parse_tokenizer
from tests.export.sources.huggingface.folders import bert, save, wordpiece, write_json

MAX_STEPS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "bert", bert("BertModel"), wordpiece(truncation=MAX_STEPS, padding=MAX_STEPS))


@pytest.mark.parametrize("num_tokens", [1, MAX_STEPS - 2, MAX_STEPS, MAX_STEPS + 20])
def test_ids_are_those_of_transformers_with_special_tokens_when_cut(folder: Path, num_tokens: int) -> None:
    text = " ".join(["oak", "maplewood", "elm!"] * num_tokens)
    text = " ".join(text.split()[:num_tokens])
    reference = AutoTokenizer.from_pretrained(folder)
    tokenizer = read_tokenizer(folder, cuts=True)
    assert tokenizer.max_steps == MAX_STEPS
    [ids] = tokenizer.encode([text], MAX_STEPS)
    assert ids == reference(text, truncation=True, max_length=MAX_STEPS)["input_ids"]
    assert ids[0] == reference.cls_token_id
    assert ids[-1] == reference.sep_token_id
    uncut = Tokenizer.from_str(tokenizer.content).encode(text).ids
    assert uncut == reference(text, truncation=False, padding=False)["input_ids"]
    # The rule of the service: the text's own tokens are cut at the end, before the special tokens are added.
    assert ids == [uncut[0], *uncut[1:-1][: MAX_STEPS - 2], uncut[-1]]


def test_saved_settings_are_taken_out_and_the_service_accepts_the_rest(folder: Path) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    assert saved["truncation"]["max_length"] == MAX_STEPS
    assert saved["padding"] is not None
    content = read_tokenizer(folder, cuts=True).content
    assert json.loads(content)["truncation"] is None
    assert json.loads(content)["padding"] is None
    parse_tokenizer(content, 26)


def test_the_smaller_of_two_limits_counts(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings | {"model_max_length": 13})
    assert read_tokenizer(folder, cuts=True).max_steps == 13


def test_a_folder_without_limits_gives_none(tmp_path: Path) -> None:
    assert read_tokenizer(save(tmp_path / "bert", bert("BertModel"), wordpiece()), cuts=True).max_steps is None


def test_a_folder_without_a_fast_tokenizer_is_refused_with_the_way_out(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ExportError, match=r"no tokenizer.json.*AutoTokenizer.from_pretrained"):
        read_tokenizer(folder, cuts=True)


def test_cuts_at_the_left_are_refused_where_texts_are_cut(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings | {"truncation_side": "left"})
    with pytest.raises(ExportError, match="expected truncation_side to be right"):
        read_tokenizer(folder, cuts=True)
    assert read_tokenizer(folder, cuts=False).max_steps == MAX_STEPS
