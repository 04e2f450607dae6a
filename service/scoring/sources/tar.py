"""Tar archives as streams of members, read to the end of the file.

Invariant: no member is left out without an error. `tarfile` takes a damaged header, or a file that is cut off between
two members, for the end of the archive, and does not look behind the zeros that end the first of several archives.
"""

import tarfile
from typing import IO, Self, cast

from service.scoring.sources.stream import Stream


def open_archive(stream: Stream) -> tarfile.TarFile:
    """Open the archive at the position of the stream. Iterating it raises tarfile.ReadError where it is damaged."""
    # A compressed stream cannot seek back cheaply, so tarfile must not read beyond the member it returns.
    bufsize = tarfile.RECORDSIZE if stream.file.compression is None else tarfile.BLOCKSIZE
    return tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", bufsize=bufsize, errorlevel=2, tarinfo=_Member)


class _Member(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        has_end = False
        while True:
            try:
                return super().fromtarfile(archive)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                has_end = True
            except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
                if has_end:
                    raise tarfile.EOFHeaderError from error  # type: ignore[attr-defined]
                raise tarfile.ReadError("the archive is cut off: no zeros mark its end") from error
            except tarfile.HeaderError as error:
                raise tarfile.ReadError(f"the archive is damaged: {error}") from error
