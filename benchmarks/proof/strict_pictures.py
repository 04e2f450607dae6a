"""Plain decoders of PNG and of grey sequential JPEG, which refuse whatever is not as the specifications say.

They are written for clarity from the PNG specification and ITU-T T.81, share nothing with the service or Pillow, and
take milliseconds for 28 x 28 pixels. Both raise ValueError, KeyError, IndexError or zlib.error for a broken file.
"""

import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

DHT, SOS, DQT, DRI = 0xC4, 0xDA, 0xDB, 0xDD
Pixels = npt.NDArray[np.float64]
ZIGZAG = sorted(((i // 8, i % 8) for i in range(64)), key=lambda at: (sum(at), at[sum(at) % 2 == 0]))
COSINES = np.array(
    [
        [math.cos((2 * x + 1) * u * math.pi / 16) * (math.sqrt(0.5) if u == 0 else 1) / 2 for u in range(8)]
        for x in range(8)
    ]
)


def decode_png(content: bytes) -> Pixels:
    """Return the samples of a PNG of 8 bits a channel without interlacing, [height, width, channels]."""
    at, chunks = 8, []
    while not chunks or chunks[-1][0] != b"IEND":
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        if struct.unpack_from(">I", content, at + 8 + length)[0] != zlib.crc32(kind + body):
            raise ValueError("checksum")
        if kind not in (b"IHDR", b"IDAT", b"IEND") and not kind[0] & 32:
            raise ValueError("an unknown critical chunk")
        chunks.append((kind, body))
        at += 12 + length
    kinds = [kind for kind, _ in chunks]
    first = kinds.index(b"IDAT")
    num_pieces = kinds.count(b"IDAT")
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") > 1 or kinds[first : first + num_pieces] != [b"IDAT"] * num_pieces:
        raise ValueError("order")
    width, height, bits, colour, *methods = struct.unpack(">IIBBBBB", chunks[0][1])
    if bits != 8 or methods != [0, 0, 0]:
        raise ValueError("method")
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    inflate = zlib.decompressobj()
    data = inflate.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    if not inflate.eof or inflate.unused_data or len(data) != height * (1 + width * channels):
        raise ValueError("data")
    rows, above = [], [0] * (width * channels)
    for y in range(height):
        begin = y * (1 + width * channels)
        above = _unfilter(data[begin], data[begin + 1 : begin + 1 + width * channels], above, channels)
        rows.append(above)
    return np.array(rows, np.float64).reshape(height, width, channels)


def _unfilter(kind: int, line: bytes, above: list[int], channels: int) -> list[int]:
    row: list[int] = []
    for i, value in enumerate(line):
        left, corner = (row[i - channels], above[i - channels]) if i >= channels else (0, 0)
        estimate = left + above[i] - corner
        near = min((left, above[i], corner), key=lambda each: abs(estimate - each))
        row.append((value + [0, left, above[i], (left + above[i]) // 2, near][kind]) % 256)
    return row


def decode_grey_jpeg(content: bytes) -> Pixels:
    """Return the samples of a grey sequential JPEG of one scan, [height, width, 1], neither rounded nor clipped."""
    at, tables, frame, scan = _jpeg_head(content)
    if frame[0] != 8 or frame[5] != 1 or len(scan) != 6 or scan[0] != 1 or scan[3:] != bytes([0, 63, 0]):
        raise ValueError("frame or scan")
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    codes, factors = tables[DHT], tables[DQT][frame[8]]
    dc, ac = codes[scan[2] >> 4], codes[16 + (scan[2] & 15)]
    parts, end = _entropy(content, at)
    if content[end : end + 2] != b"\xff\xd9":
        raise ValueError("end")
    columns = math.ceil(width / 8)
    num_blocks = math.ceil(height / 8) * columns
    interval = tables[DRI].get(0) or num_blocks
    lengths = [min(interval, num_blocks - begin) for begin in range(0, num_blocks, interval)]
    blocks = [block for part, length in zip(parts, lengths, strict=True) for block in _blocks(part, length, dc, ac)]
    picture = np.zeros((num_blocks // columns * 8, columns * 8))
    for number, block in enumerate(blocks):
        spread = np.zeros((8, 8))
        for (row, column), value, factor in zip(ZIGZAG, block, factors, strict=True):
            spread[row, column] = value * factor
        y, x = divmod(number, columns)
        picture[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = COSINES @ spread @ COSINES.T + 128
    return picture[:height, :width, None]


def _jpeg_head(content: bytes) -> tuple[int, dict[int, dict[int, Any]], bytes, bytes]:
    """Return the place of the data, the tables by marker, and the bodies of the frame and of its first scan."""
    at, frame = 2, b""
    tables: dict[int, dict[int, Any]] = {DQT: {}, DHT: {}, DRI: {}}
    while True:
        while content[at + 1] == 0xFF:
            at += 1
        start, marker, length = content[at], content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        body, at = content[at + 4 : at + 2 + length], at + 2 + length
        if start != 0xFF or len(body) != length - 2:
            raise ValueError("segment")
        if marker == SOS:
            return at, tables, frame, body
        if marker in (0xC0, 0xC1):
            if frame:
                raise ValueError("two frames")
            frame = body
        elif marker == DRI:
            tables[DRI][0] = int.from_bytes(body)
        elif marker in (DQT, DHT):
            while body:
                tables[marker][body[0]], used = (_codes if marker == DHT else _factors)(body)
                body = body[used:]
        elif not (0xE0 <= marker < 0xF0 or marker == 0xFE):
            raise ValueError("marker")


def _factors(body: bytes) -> tuple[list[int], int]:
    if body[0] >> 4:
        return [int.from_bytes(body[1 + 2 * i : 3 + 2 * i]) for i in range(64)], 129
    return [body[1 + i] for i in range(64)], 65


def _codes(body: bytes) -> tuple[dict[str, int], int]:
    code, at, found = 0, 17, {}
    for length in range(1, 17):
        for _ in range(body[length]):
            found[format(code, f"0{length}b")] = body[at]
            code, at = code + 1, at + 1
        code *= 2
    return found, at


def _entropy(content: bytes, at: int) -> tuple[list[str], int]:
    """Return the bits between restart markers, and the place of the marker behind them."""
    parts: list[list[int]] = [[]]
    while True:
        if content[at] != 0xFF:
            parts[-1].append(content[at])
            at += 1
        elif content[at + 1] == 0:
            parts[-1].append(0xFF)
            at += 2
        elif content[at + 1] == 0xD0 + (len(parts) - 1) % 8:
            parts.append([])
            at += 2
        else:
            return ["".join(format(byte, "08b") for byte in part) for part in parts], at


def _blocks(bits: str, number: int, dc: dict[str, int], ac: dict[str, int]) -> list[list[int]]:
    at, level, blocks = 0, 0, []

    def symbol(codes: dict[str, int]) -> int:
        nonlocal at
        for length in range(1, 17):
            if bits[at : at + length] in codes and at + length <= len(bits):
                at += length
                return codes[bits[at - length : at]]
        raise ValueError("code")

    def amount(size: int) -> int:
        nonlocal at
        taken = bits[at : at + size]
        if len(taken) < size:
            raise ValueError("bits")
        at += size
        return int(taken, 2) - (0 if taken[0] == "1" else (1 << size) - 1) if size else 0

    for _ in range(number):
        size = symbol(dc)
        if size > 11:
            raise ValueError("size")
        level += amount(size)
        block = [level]
        while len(block) < 64:
            run, size = divmod(symbol(ac), 16)
            if size == 0 and run < 15:
                if run:
                    raise ValueError("run")
                block += [0] * (64 - len(block))
            else:
                if size > 10:
                    raise ValueError("size")
                block += [0] * run + [amount(size)]
        if len(block) > 64:
            raise ValueError("block")
        blocks.append(block)
    if len(bits) - at >= 8:
        raise ValueError("left")
    return blocks
