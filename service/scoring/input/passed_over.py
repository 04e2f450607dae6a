"""Files that an input holds and that are not scored, counted for the summary by their suffix."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from service.scoring.input.files import InputFile, is_image_name
from service.scoring.storage.location import Location, parse_location

HIDDEN = "hidden"
NO_SUFFIX = "no suffix"


def other_kind(name: str) -> str | None:
    """What a file counts as that is no image; None for an image. Hidden parents hide their files, `./` does not."""
    parts = [part for part in PurePosixPath(name).parts if part not in {".", ".."}]
    if any(part.startswith((".", "_")) for part in parts):
        return HIDDEN
    return None if is_image_name(name) else suffix_of(name)


def suffix_of(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower() or NO_SUFFIX
    # Bytes of a name that are no UTF-8 are surrogates in Python, which no summary can hold.
    return suffix.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def count_passed_over(inputs: Sequence[str], files: Sequence[InputFile], *, output: Location) -> Counter[str]:
    """Count the files below the local folders among the inputs that are not scored, by suffix."""
    counts = Counter[str]()
    excluded = os.path.realpath(output.path) if output.kind == "file" else None
    scored = {file.uri for file in files}
    tables = {file.table.partition("?")[0].partition("/metadata/")[0] for file in files if file.table}
    has_images = any(file.format == "images" for file in files)
    places = [parse_location(text, option="--input") for text in inputs]
    local = [place.path for place in places if place.kind == "file" and Path(place.path).is_dir()]
    for folder in {os.path.realpath(path): path for path in local}.values():
        for parent, folders, names in os.walk(folder):
            folder_places = [os.path.join(parent, name) for name in folders]  # noqa: PTH118 - as os.walk has them
            folders[:] = [
                name
                for name, place in zip(folders, folder_places, strict=True)
                if os.path.realpath(place) not in tables | {excluded}
            ]
            is_table = os.path.realpath(parent) in tables
            for name in () if is_table else names:
                place = os.path.join(parent, name)  # noqa: PTH118 - as os.walk has them
                is_hidden = other_kind(os.path.relpath(place, folder)) == HIDDEN
                if place in scored or (has_images and is_image_name(name) and not is_hidden):
                    continue
                counts[HIDDEN if is_hidden else suffix_of(name)] += 1
            if is_table:
                folders[:] = []
    return counts
