from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.data import vowels
from training.recipe import Data


def write_ts(path: Path, utterances: list[np.ndarray], speakers: list[int]) -> None:
    lines = [
        ":".join(",".join(repr(float(value)) for value in channel) for channel in steps.T) + f":{speaker}"
        for steps, speaker in zip(utterances, speakers, strict=True)
    ]
    path.write_text("# comment\n@problemName JapaneseVowels\n@classLabel true 1 2 3\n@data\n" + "\n".join(lines) + "\n")


def write_ae(path: Path, utterances: list[np.ndarray], end: str) -> None:
    rows = [
        " ".join(repr(float(value)) for value in step)
        for steps in utterances
        for step in [*steps, None]
        if step is not None
    ]
    texts, at = [], 0
    for steps in utterances:
        texts += [*rows[at : at + len(steps)], end]
        at += len(steps)
    path.write_text("\n".join(texts) + "\n")


@pytest.fixture(scope="module")
def utterances() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rng.integers(7, 30), 12)).astype(np.float32) for _ in range(640)]


@pytest.mark.parametrize("end", [" ".join(["1.000000"] * 12), ""])
def test_both_forms_give_the_same_arrays(tmp_path: Path, utterances: list[np.ndarray], end: str) -> None:
    speakers = {name: np.repeat(range(1, 10), counts).tolist() for name, counts in vowels.AE_COUNTS.items()}
    parts = {"TRAIN": (utterances[:270], "ae.train"), "TEST": (utterances[270:], "ae.test")}
    for name in ("ts", "ae"):
        (tmp_path / name).mkdir()
    for part, (some, ae) in parts.items():
        write_ts(tmp_path / "ts" / f"JapaneseVowels_{part}.ts", some, speakers[ae])
        write_ae(tmp_path / "ae" / ae, some, end)
    from_ts, from_ae = vowels.load(tmp_path / "ts"), vowels.load(tmp_path / "ae")
    assert_equal_data(from_ts, from_ae)
    for i in (0, 369):
        length = from_ts.test.inputs["lengths"][i]
        assert np.array_equal(from_ts.test.inputs["series"][i, :length], utterances[270 + i])
        assert not from_ts.test.inputs["series"][i, length:].any()
    assert from_ts.test.targets[[0, 30, 31, 369]].tolist() == [0, 0, 1, 8]


def assert_equal_data(one: Data, other: Data) -> None:
    for part in ("train", "validation", "test"):
        actual, expected = getattr(one, part), getattr(other, part)
        assert np.array_equal(actual.targets, expected.targets)
        for name in ("series", "lengths"):
            assert np.array_equal(actual.inputs[name], expected.inputs[name])
    assert one.config == other.config


def test_embedded_data_equal_real_data(real: Callable[[str], Path]) -> None:
    assert_equal_data(vowels.load(None), vowels.load(real("japanese_vowels")))


def test_embedded_series_match_published_description() -> None:
    data = vowels.load(None)
    assert [len(data.train), len(data.validation), len(data.test)] == [243, 27, 370]
    assert np.bincount(data.test.targets).tolist() == list(vowels.AE_COUNTS["ae.test"])
    lengths = np.concatenate([split.inputs["lengths"] for split in (data.train, data.validation, data.test)])
    assert (lengths.min(), lengths.max()) == (7, 29)
    series, lengths = data.train.inputs["series"], data.train.inputs["lengths"]
    steps = np.concatenate([row[:length] for row, length in zip(series, lengths, strict=True)])
    np.testing.assert_allclose(data.config["mean"], steps.mean(0), atol=1e-5)
    np.testing.assert_allclose(data.config["std"], steps.std(0), atol=1e-5)


def ts_line(channels: int = 12, steps: str = "1,2", last: str = "1,2", speaker: str = "1") -> str:
    return "@data\n" + ":".join([steps] * (channels - 1) + [last, speaker])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2:1", "x.ts: expected a line @data"),
        ("@data\n", "no series after @data"),
        (ts_line(channels=11), "line 2: expected 12 channels and a label, found 11 channels"),
        (ts_line(last="1,?"), "line 2: expected numbers"),
        (ts_line(last="1"), r"line 2: channels have different numbers of steps: \[1, 2\]"),
        (ts_line(speaker="10"), "line 2: expected a speaker 1-9, found '10'"),
    ],
)
def test_invalid_ts_line_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vowels.read_ts(text, location="x.ts")


def test_invalid_ae_line_is_named(tmp_path: Path) -> None:
    good = " ".join(["0.5"] * 12)
    with pytest.raises(ValueError, match="x, line 2: expected 12 numbers, found 3"):
        vowels.read_ae(f"{good}\n1 2 3\n", location="x")
    with pytest.raises(ValueError, match="x, line 1: expected numbers"):
        vowels.read_ae("one 2 3\n", location="x")
    with pytest.raises(ValueError, match="the last utterance has no end"):
        vowels.read_ae(good, location="x")
    (tmp_path / "ae.train").write_text(good + "\n\n")
    with pytest.raises(ValueError, match=r"ae\.train: expected 270 utterances, found 1"):
        vowels.load(tmp_path)
