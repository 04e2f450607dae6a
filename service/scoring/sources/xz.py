"""Decompresses xz, which Arrow does not know, with bounded memory: a file declares how much its decoder needs."""

import lzma
from typing import Any

BLOCK_BYTES = 1 << 16
# `xz -9` needs 65 MiB.
MAX_MEMORY_BYTES = 256 << 20


class XzStream:
    """The decompressed bytes of one or more xz streams, as `xz --stdout --decompress` gives them."""

    def __init__(self, raw: Any) -> None:
        """`raw` is the compressed file, opened for reading."""
        self._raw = raw
        self._decoder = self._new_decoder()
        self._input = b""  # read, but not given to the decoder yet

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes, none only at the end. Raises EOFError if cut off, OSError if broken."""
        try:
            while size:
                if self._decoder.eof and not self._start_stream():
                    return b""
                compressed = b""
                if self._decoder.needs_input and not (compressed := self._next_input()):
                    raise EOFError("the xz file ends too early")
                content = self._decoder.decompress(compressed, size)
                if content:
                    return content
        except lzma.LZMAError as error:
            raise OSError(f"not a valid xz file: {error}") from error
        return b""

    def close(self) -> None:
        self._raw.close()

    def _start_stream(self) -> bool:
        """Begin with the stream behind the one that has ended; false at the end of the file."""
        self._input = self._decoder.unused_data.lstrip(b"\0")  # streams may be padded with zeros
        while not self._input:
            part = self._next_input()
            if not part:
                return False
            self._input = part.lstrip(b"\0")
        self._decoder = self._new_decoder()
        return True

    def _next_input(self) -> bytes:
        part, self._input = self._input or bytes(self._raw.read(BLOCK_BYTES)), b""
        return part

    @staticmethod
    def _new_decoder() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_MEMORY_BYTES)
