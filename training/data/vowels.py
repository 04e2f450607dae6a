"""JapaneseVowels: nine male speakers saying /ae/, as 7-29 steps of 12 coefficients; by default the copy in sktime.

Both forms, `.ts` and the original `ae.train`/`ae.test`, give the same float32 arrays; series are not scaled.
Source: M. Kudo, J. Toyama, M. Shimbo, Pattern Recognition Letters 20 (1999).
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.holdout import hold_out
from training.data.source import Source
from training.recipe import Data, Split

# The seed of the validation split, independent of the seed of the run.
SEED = 1999
CHANNELS = 12
SPEAKERS = 9

# Utterances of each speaker in order; these files have no labels.
AE_COUNTS = {"ae.train": (30,) * SPEAKERS, "ae.test": (31, 35, 88, 44, 29, 24, 40, 50, 29)}

Series = list[npt.NDArray[np.float32]]  # each [steps, channels]
Labelled = tuple[Series, npt.NDArray[np.int64]]


def load(path: Path | None) -> Data:
    """270 training utterances, of which a tenth is the validation split, and 370 test utterances."""
    source = Source(_embedded_folder() if path is None else path)
    name = "JapaneseVowels (sktime)" if path is None else source.name
    if source.first_match("ae.train") and not source.first_match("JapaneseVowels_TRAIN.ts"):
        train, test = _ae(source, "ae.train"), _ae(source, "ae.test")
    else:
        train, test = _ts(source, "JapaneseVowels_TRAIN.ts"), _ts(source, "JapaneseVowels_TEST.ts")
    train_items, validation_items = hold_out(train[1], share=0.1, seed=SEED)
    steps = np.concatenate([train[0][i] for i in train_items])
    return Data(
        name=name,
        note=f"{len(train[1])} training and {len(test[1])} test utterances of nine speakers, UCI data set 128. "
        "Not for other speakers, words or microphones.",
        train=_split([train[0][i] for i in train_items], train[1][train_items]),
        validation=_split([train[0][i] for i in validation_items], train[1][validation_items]),
        test=_split(*test),
        labels=tuple(f"speaker {i}" for i in range(1, SPEAKERS + 1)),
        sha256=source.sha256,
        config={
            "channels": CHANNELS,
            "labels": SPEAKERS,
            "mean": [round(float(x), 6) for x in steps.mean(0, dtype=np.float64)],
            "std": [round(float(x), 6) for x in steps.std(0, dtype=np.float64)],
        },
    )


def _embedded_folder() -> Path:
    """The folder of the data in sktime."""
    # Importing sktime takes seconds; finding it does not.
    spec = find_spec("sktime")
    if spec is None or spec.origin is None:
        raise ValueError(
            "the embedded vowels need the package sktime (dependency group train); install it or pass --data"
        )
    return Path(spec.origin).parent / "datasets" / "data" / "JapaneseVowels"


def _split(series: Series, targets: npt.NDArray[np.int64]) -> Split:
    lengths = np.array([len(x) for x in series], np.int64)
    padded = np.zeros((len(series), lengths.max(), CHANNELS), np.float32)
    for row, x in zip(padded, series, strict=True):
        row[: len(x)] = x
    return Split(inputs={"series": padded, "lengths": lengths}, targets=targets)


def _ts(source: Source, file_name: str) -> Labelled:
    name = source.require(file_name)
    return read_ts(source.read_text(name), location=source.location(name))


def read_ts(text: str, *, location: str) -> Labelled:
    """The series of a `.ts` file: each line after `@data` is the channels and the label, separated by `:`."""
    lines = text.splitlines()
    if "@data" not in (line.strip().lower() for line in lines):
        raise ValueError(f"{location}: expected a line @data")
    series: Series = []
    targets: list[int] = []
    in_data = False
    for number, line in enumerate(lines, 1):
        if in_data and line.strip():
            *channels, label = line.strip().split(":")
            series.append(_channels(channels, f"{location}, line {number}"))
            targets.append(_speaker(label, f"{location}, line {number}"))
        in_data = in_data or line.strip().lower() == "@data"
    if not series:
        raise ValueError(f"{location}: no series after @data")
    return series, np.array(targets, np.int64)


def _channels(fields: list[str], location: str) -> npt.NDArray[np.float32]:
    if len(fields) != CHANNELS:
        raise ValueError(f"{location}: expected {CHANNELS} channels and a label, found {len(fields)} channels")
    try:
        rows = [np.array(field.split(","), np.float32) for field in fields]
    except ValueError as error:
        raise ValueError(f"{location}: expected numbers: {error}") from error
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise ValueError(f"{location}: channels have different numbers of steps: {sorted(lengths)}")
    return np.stack(rows, axis=1)


def _speaker(label: str, location: str) -> int:
    if label not in {str(i) for i in range(1, SPEAKERS + 1)}:
        raise ValueError(f"{location}: expected a speaker 1-{SPEAKERS}, found {label!r}")
    return int(label) - 1


def _ae(source: Source, file_name: str) -> Labelled:
    name = source.require(file_name)
    series = read_ae(source.read_text(name), location=source.location(name))
    counts = AE_COUNTS[file_name]
    if len(series) != sum(counts):
        raise ValueError(f"{source.location(name)}: expected {sum(counts)} utterances, found {len(series)}")
    return series, np.repeat(np.arange(SPEAKERS, dtype=np.int64), counts)


def read_ae(text: str, *, location: str) -> Series:
    """The utterances of an original file: rows of 12 numbers; a row of twelve 1.0 or an empty line ends each."""
    series: Series = []
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = [float(field) for field in line.split()]
        except ValueError as error:
            raise ValueError(f"{location}, line {number}: expected numbers: {error}") from error
        if row and row != [1.0] * CHANNELS:
            if len(row) != CHANNELS:
                raise ValueError(f"{location}, line {number}: expected {CHANNELS} numbers, found {len(row)}")
            rows.append(row)
        elif rows:
            series.append(np.array(rows, np.float32))
            rows = []
    if rows:
        raise ValueError(f"{location}: the last utterance has no end: a row of twelve 1.0 or an empty line")
    return series
