"""JapaneseVowels: which of nine men said /ae/, from 7-29 steps of 12 coefficients; by default the copy sktime carries.

Both forms, `.ts` and the original `ae.train`/`ae.test`, give the same float32 arrays; series stay unscaled.
Source: M. Kudo, J. Toyama, M. Shimbo, Pattern Recognition Letters 20 (1999).
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.holdout import hold_out
from training.data.source import Source
from training.recipe import Data, Split

SEED = 1999  # of the validation cut, whatever the training's own seed
CHANNELS = 12
SPEAKERS = 9
AE_COUNTS = {"ae.train": (30,) * SPEAKERS, "ae.test": (31, 35, 88, 44, 29, 24, 40, 50, 29)}  # the file has no labels
Series = list[npt.NDArray[np.float32]]  # each [steps, channels]
Labelled = tuple[Series, npt.NDArray[np.int64]]


def load(path: Path | None) -> Data:
    """270 utterances to learn from (a tenth of them for validation) and 370 to test on."""
    source = Source(_carried() if path is None else path)
    if source.find("ae.train") and not source.find("JapaneseVowels_TRAIN.ts"):
        train, test = _ae(source, "ae.train"), _ae(source, "ae.test")
    else:
        train, test = _ts(source, "JapaneseVowels_TRAIN.ts"), _ts(source, "JapaneseVowels_TEST.ts")
    kept, held = hold_out(train[1], share=0.1, seed=SEED)
    steps = np.concatenate([train[0][i] for i in kept])
    return Data(
        name="JapaneseVowels",
        note=f"{len(train[1])} training and {len(test[1])} test utterances of nine speakers, UCI data set 128.",
        train=_split([train[0][i] for i in kept], train[1][kept]),
        validation=_split([train[0][i] for i in held], train[1][held]),
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


def _carried() -> Path:
    """sktime's own folder, found without importing sktime, which takes seconds."""
    spec = find_spec("sktime")
    if spec is None or spec.origin is None:
        raise ValueError("the embedded vowels need the package sktime (dependency group train); or name a folder")
    return Path(spec.origin).parent / "datasets" / "data" / "JapaneseVowels"


def _split(series: Series, targets: npt.NDArray[np.int64]) -> Split:
    lengths = np.array([len(x) for x in series], np.int64)
    padded = np.zeros((len(series), lengths.max(), CHANNELS), np.float32)
    for row, x in zip(padded, series, strict=True):
        row[: len(x)] = x
    return Split(inputs={"series": padded, "lengths": lengths}, targets=targets)


def _ts(source: Source, wanted: str) -> Labelled:
    name = source.need(wanted)
    return read_ts(source.text(name), where=source.where(name))


def read_ts(text: str, *, where: str) -> Labelled:
    """The series of a `.ts` file: after `@data`, a line holds its channels parted by `:`, then the label."""
    lines = text.splitlines()
    if "@data" not in (line.strip().lower() for line in lines):
        raise ValueError(f"{where}: expected a line @data")
    series: Series = []
    targets: list[int] = []
    began = False
    for number, line in enumerate(lines, 1):
        if began and line.strip():
            *channels, label = line.strip().split(":")
            series.append(_channels(channels, f"{where}, line {number}"))
            targets.append(_speaker(label, f"{where}, line {number}"))
        began = began or line.strip().lower() == "@data"
    if not series:
        raise ValueError(f"{where}: no series after @data")
    return series, np.array(targets, np.int64)


def _channels(fields: list[str], where: str) -> npt.NDArray[np.float32]:
    if len(fields) != CHANNELS:
        raise ValueError(f"{where}: expected {CHANNELS} channels and a label, found {len(fields)} channels")
    try:
        rows = [np.array(field.split(","), np.float32) for field in fields]
    except ValueError as error:
        raise ValueError(f"{where}: expected numbers: {error}") from error
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise ValueError(f"{where}: channels have different numbers of steps: {sorted(lengths)}")
    return np.stack(rows, axis=1)


def _speaker(label: str, where: str) -> int:
    if label not in {str(i) for i in range(1, SPEAKERS + 1)}:
        raise ValueError(f"{where}: expected a speaker 1-{SPEAKERS}, found {label!r}")
    return int(label) - 1


def _ae(source: Source, wanted: str) -> Labelled:
    name = source.need(wanted)
    series = read_ae(source.text(name), where=source.where(name))
    counts = AE_COUNTS[wanted]
    if len(series) != sum(counts):
        raise ValueError(f"{source.where(name)}: expected {sum(counts)} utterances, found {len(series)}")
    return series, np.repeat(np.arange(SPEAKERS, dtype=np.int64), counts)


def read_ae(text: str, *, where: str) -> Series:
    """Utterances as rows of 12 numbers; a row of twelve 1.0, or an empty line, ends each."""
    series: Series = []
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = [float(field) for field in line.split()]
        except ValueError as error:
            raise ValueError(f"{where}, line {number}: expected numbers: {error}") from error
        if row and row != [1.0] * CHANNELS:
            if len(row) != CHANNELS:
                raise ValueError(f"{where}, line {number}: expected {CHANNELS} numbers, found {len(row)}")
            rows.append(row)
        elif rows:
            series.append(np.array(rows, np.float32))
            rows = []
    if rows:
        raise ValueError(f"{where}: the last utterance has no end: a row of twelve 1.0 or an empty line")
    return series
