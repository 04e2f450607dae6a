"""The `.ts` format of time series."""

from pathlib import Path

import pytest

from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score
from tests.service.scoring.inputs import series
from tests.service.scoring.sources.conftest import Read, spans_of

HEADER = "#comment\n@problemName p\n@timeStamps false\n@univariate false\n@classLabel true a b\n@data\n"


@pytest.mark.parametrize("size", [1, 100])
def test_series_of_several_channels_and_lengths_are_read(size: int, read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(HEADER + "1,2,3:4,5,6:a\n\n-1.5e3,2: 4,5 : b\r\n")
    assert read(tmp_path / "a.ts", size) == [
        (6, {"sequence": [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], "label": "a"}, None),
        (8, {"sequence": [[-1500.0, 4.0], [2.0, 5.0]], "label": "b"}, None),
    ]


def test_a_file_without_labels_has_only_series(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text("@classLabel false\n@data\n1,2:3,4\n")
    assert read(tmp_path / "a.ts") == [(2, {"sequence": [[1.0, 3.0], [2.0, 4.0]]}, None)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1,?:3,4:a", "channel 0: could not convert"),
        ("1,2:3:a", "expected channels of one length, got 2, 1"),
        ("a", "expected a series before the label"),
        ("1,2:x,4:a", "channel 1: could not convert"),
    ],
)
def test_a_bad_series_is_one_fault(line: str, fault: str, read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(f"{HEADER}1:2:a\n{line}\n3:4:b\n")
    found = read(tmp_path / "a.ts")
    assert [bool(fault) for _, _, fault in found] == [False, True, False]
    assert str(found[1][2]).startswith(fault)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("1,2:a\n", "no line @data"), ("@timestamps true\n@data\n(0,1):a\n", "time stamps"), ("", "no line @data")],
)
def test_other_files_are_refused(content: str, reason: str, read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(content)
    with pytest.raises(ScoringError, match=reason):
        read(tmp_path / "a.ts")


def test_the_archive_is_read_as_its_library_reads_it(tmp_path: Path, read: Read) -> None:
    sktime = pytest.importorskip("sktime.datasets", reason="the reference reader is not installed")
    series, labels = sktime.load_japanese_vowels(split="test", return_type="nested_univ")
    lines = [
        ":".join(",".join(map(repr, channel.tolist())) for channel in row) + f":{label}"
        for row, label in zip(series.to_numpy(), labels, strict=True)
    ]
    (tmp_path / "a.ts").write_text(HEADER + "\n".join(lines) + "\n")
    found = read(tmp_path / "a.ts", 50)
    assert [values["label"] for _, values, _ in found] == labels.tolist()
    for (_, values, fault), row in zip(found, series.to_numpy(), strict=True):
        assert fault is None
        assert values["sequence"] == [list(step) for step in zip(*row, strict=True)]


def test_the_digest_covers_the_values(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(HEADER + "1:2:a\n")
    (tmp_path / "b.ts").write_text(HEADER + "1:3:a\n")
    assert spans_of(tmp_path / "a.ts", 9)[0].digest != spans_of(tmp_path / "b.ts", 9)[0].digest


def test_other_encodings_are_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(HEADER + "1,2:3,4:\u00e4\n", encoding="utf-16")
    (tmp_path / "b.ts").write_text(HEADER + "1,2:3,4:\u00e4\n", encoding="cp1252")
    expected = [(6, {"sequence": [[1.0, 3.0], [2.0, 4.0]], "label": "\u00e4"}, None)]
    assert read(tmp_path / "a.ts") == read(tmp_path / "b.ts", encoding="cp1252") == expected


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl"])
def test_a_job_copies_labels(sink: str, score: Score, tmp_path: Path) -> None:
    rows = [":".join(",".join(map(str, channel)) for channel in zip(*item, strict=True)) for item in series(20)]
    (tmp_path / "a.ts").write_text(HEADER + "".join(f"{row}:c{i % 3}\n" for i, row in enumerate(rows)))
    result = score("series-classifier", tmp_path / "a.ts", tmp_path / "out", output_format=sink, keep=("label",))
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (20, 0)
    table = result.to_table()
    assert table["input_label"].to_pylist() == [f"c{i % 3}" for i in range(20)]
