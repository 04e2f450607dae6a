"""Corruptions of a tokenizer.json: each changes the ids of some text, or what the tokenizer accepts."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer

Settings = dict[str, Any]
NUM_TEXTS = 5_000
MARKUP = ("&lt;b&gt;", "&lt;", "&gt;", " #39;", "&#39;", "&#039;", "&amp;", "#36;", "#145;", "\\", "2004")


def corruptions(content: str, *, seed: int = 0) -> dict[str, str]:
    """The corrupted tokenizer.json by the name of its corruption; those that change nothing are left out."""
    settings = json.loads(content)
    rng = np.random.default_rng(seed)
    texts = list(_random_texts(sorted(settings["model"]["vocab"]), rng))
    ids = _encode(content, texts)
    found = {}
    for name, change in _changes(settings, rng):
        corrupted = copy.deepcopy(settings)
        change(corrupted)
        if corrupted != settings and _encode(json.dumps(corrupted), texts) != ids:
            found[name] = json.dumps(corrupted, ensure_ascii=False)
    return found


def _encode(content: str, texts: list[str]) -> list[list[int]] | None:
    """The ids of the texts, None if the tokenizer cannot be read or fails."""
    try:
        return [encoding.ids for encoding in Tokenizer.from_str(content).encode_batch(texts)]
    except Exception:  # noqa: BLE001 - tokenizers raises bare Exception
        return None


def _random_texts(tokens: list[str], rng: np.random.Generator) -> Iterator[str]:
    """Texts of tokens, markup, and characters of all kinds, joined with and without spaces; and each token alone."""
    yield from tokens
    words = np.array(tokens, object)
    characters = np.array([chr(point) for point in range(1, 0x600) if chr(point).isprintable()], object)
    parts = np.array([*MARKUP, "  ", "\n", "\t", "漢", "😀", "\u0301", "\ufdfa", "ﬁ"], object)
    for _ in range(NUM_TEXTS):
        chosen = [*rng.choice(words, 4), *rng.choice(parts, 2), *rng.choice(characters, 2), rng.choice(words).upper()]
        yield str(rng.choice(["", " "])).join(chosen[i] for i in rng.permutation(len(chosen)))


def _changes(settings: Settings, rng: np.random.Generator) -> Iterator[tuple[str, Callable[[Settings], None]]]:
    tokens = sorted(settings["model"]["vocab"], key=settings["model"]["vocab"].get)
    rare, common = tokens[-40:], tokens[2:40]
    for i in range(6):
        yield f"two rare tokens swapped ({i})", _swap(*rng.choice(rare, 2, replace=False))
    for i in range(3):
        yield f"two common tokens swapped ({i})", _swap(*rng.choice(common, 2, replace=False))
    for i in range(2):
        yield f"a common and a rare token swapped ({i})", _swap(str(rng.choice(common)), str(rng.choice(rare)))
    yield "padding and a token swapped", _swap(tokens[0], common[3])
    yield "unknown and a token swapped", _swap(tokens[1], common[4])
    yield "padding and unknown swapped", _swap(tokens[0], tokens[1])
    yield "ids shifted by one", _renumber(tokens, lambda i: (i + 1) % len(tokens))
    yield "ids reversed", _renumber(tokens, lambda i: len(tokens) - 1 - i)
    yield "last two ids swapped", _swap(tokens[-1], tokens[-2])
    yield "the unknown token is another", _model("unk_token", common[5])
    yield "the unknown token is a rare one", _model("unk_token", rare[7])
    for i, token in enumerate((common[7], rare[5], rare[-1])):
        yield f"a token renamed ({i})", _rename(token, token + "\u0302")
        yield f"a token dropped ({i})", _rename(token, None)
    yield "a token in capitals", _rename(next(t for t in tokens if t.islower()), "QZ")
    yield "an added token", _update(added_tokens=[_added(len(tokens) - 1, rare[3])])
    yield "an added token that is a part of words", _update(added_tokens=[_added(3, "th")])
    yield "an added token that strips", _update(added_tokens=[{**_added(3, tokens[3]), "lstrip": True, "rstrip": True}])
    yield "truncation saved", _update(truncation=_TRUNCATION)
    yield "padding saved", _update(padding=_PADDING)
    yield "no normalizer", _update(normalizer=None)
    for kind in ("Lowercase", "NFKD", "NFKC", "StripAccents"):
        yield f"only the normalizer {kind}", _update(normalizer={"type": kind})
    yield "a normalizer that strips", _normalizer({"type": "Strip", "strip_left": True, "strip_right": True})
    yield "a normalizer that prepends", _normalizer({"type": "Prepend", "prepend": "a"})
    yield "a normalizer that replaces a letter", _normalizer(_replace({"String": "q"}, "k"))
    yield "a normalizer that doubles spaces", _normalizer(_replace({"String": "  "}, " "))
    rules = (settings.get("normalizer") or {}).get("normalizers", [])
    for i, rule in enumerate(rules):
        yield f"normalizer {i} dropped ({rule['type']})", _without(i)
    for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Punctuation"):
        pre_tokenizer = {"type": kind, "behavior": "Isolated"} if kind == "Punctuation" else {"type": kind}
        yield f"the pre-tokenizer {kind}", _update(pre_tokenizer=pre_tokenizer)
    for pattern in (
        r"\w+|[^\w\s]+",
        r"[a-z0-9]+|[^\w\s]",
        r"\w+",
        r"[\S]",
        r"\w+?|[^\w\s]",
        r"[^\s]+",
        r"[\s\S]{2}|[\s\S]",
    ):
        yield f"the pattern {pattern}", _pattern(pattern)
    yield "no pre-tokenizer", _update(pre_tokenizer=None)
    yield "a post-processor", _update(post_processor=_POST_PROCESSOR)
    yield "no decoder", _update(decoder=None)
    merges = settings["model"].get("merges", [])
    for i in rng.permutation(len(merges))[:3].tolist():
        yield f"merge {i} dropped", _merges(lambda pairs, i=i: pairs[:i] + pairs[i + 1 :])
        yield f"merge {i} first", _merges(lambda pairs, i=i: [pairs[i], *pairs[:i], *pairs[i + 1 :]])


_TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
_PADDING = {
    "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
    "pad_token": "[PAD]",
}  # fmt: skip
_POST_PROCESSOR = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"x": {"id": "x", "ids": [2], "tokens": ["x"]}},
}


def _swap(first: str, second: str) -> Callable[[Settings], None]:
    def change(settings: Settings) -> None:
        ids = settings["model"]["vocab"]
        ids[first], ids[second] = ids[second], ids[first]

    return change


def _renumber(tokens: list[str], number: Callable[[int], int]) -> Callable[[Settings], None]:
    return lambda settings: settings["model"].update(vocab={token: number(i) for i, token in enumerate(tokens)})


def _rename(token: str, name: str | None) -> Callable[[Settings], None]:
    def change(settings: Settings) -> None:
        number = settings["model"]["vocab"].pop(token)
        if name is not None:
            settings["model"]["vocab"][name] = number

    return change


def _model(key: str, value: Any) -> Callable[[Settings], None]:
    return lambda settings: settings["model"].update({key: value})


def _update(**values: Any) -> Callable[[Settings], None]:
    return lambda settings: settings.update(values)


def _normalizer(rule: Settings) -> Callable[[Settings], None]:
    def change(settings: Settings) -> None:
        rules = (settings.get("normalizer") or {}).get("normalizers", [])
        settings["normalizer"] = {"type": "Sequence", "normalizers": [*rules, rule]}

    return change


def _without(index: int) -> Callable[[Settings], None]:
    return lambda settings: settings["normalizer"]["normalizers"].pop(index)


def _pattern(pattern: str) -> Callable[[Settings], None]:
    def change(settings: Settings) -> None:
        first, *_ = settings["pre_tokenizer"].get("pretokenizers") or [settings["pre_tokenizer"]]
        first["pattern"] = {"Regex": pattern}

    return change


def _merges(change: Callable[[list[Any]], list[Any]]) -> Callable[[Settings], None]:
    return lambda settings: settings["model"].update(merges=change(settings["model"]["merges"]))


def _replace(pattern: Settings, content: str) -> Settings:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _added(number: int, content: str) -> Settings:
    return {
        "id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": False,
    }  # fmt: skip
