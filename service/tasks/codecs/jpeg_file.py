"""Checks that a JPEG is whole: its segments, the order of its scans, and the data of each (ITU-T T.81).

Invariant: a file passes only if nothing of its picture is missing, left over or out of order. Bytes behind its end are
not looked at. Arithmetic codes, which hardly any encoder writes, are not checked but refused.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from service.tasks.codecs.jpeg_entropy import CodeTable, Interval, Scan, kept_table

SEQUENTIAL_FRAMES, PROGRESSIVE_FRAME = (0xC0, 0xC1), 0xC2
DHT, DAC, JPG, RST0, EOI, SOS, DQT, DRI = 0xC4, 0xCC, 0xC8, 0xD0, 0xD9, 0xDA, 0xDB, 0xDD
OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {DHT, DAC, JPG}
MARKER = re.compile(rb"\xff+([\x01-\xfe])")
# A progressive encoder writes about ten scans; each costs time, however few bytes it has.
MAX_SCANS = 64
# In addition to one per KiB of the file.
MAX_SEGMENTS = 256
# The tables of a larger file fill up, so they are not kept.
MAX_BYTES_FOR_KEPT_TABLES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Component:
    """One channel: its sampling factors, its size in blocks, and what its scans have told so far.

    `low_bits` has the lowest bit that is known of each coefficient, or None before its first scan.
    """

    horizontal: int
    vertical: int
    columns: int
    rows: int
    low_bits: list[int | None] = field(default_factory=lambda: [None] * 64)
    history: list[int] = field(default_factory=list)


def check_jpeg(content: bytes) -> None:
    """Raise ValueError with the reason if a decoder would have to guess a part of the picture."""
    try:
        _JpegFile(content).check()
    except (IndexError, KeyError) as error:
        raise ValueError("one of its segments is malformed") from error


class _JpegFile:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 2
        self._num_units = 0
        self._num_scans = 0
        self._units_per_interval = 0
        self._is_progressive = False
        self._components: dict[int, Component] = {}
        self._tables: dict[int, CodeTable] = {}

    def check(self) -> None:
        for _ in range(MAX_SEGMENTS + len(self._content) // 1024):
            marker = self._next_marker()
            if marker == EOI:
                break
            body = self._next_body(marker)
            if marker == SOS:
                self._check_scan(body)
            elif marker == DHT:
                self._read_tables(body)
            elif marker == DQT:
                _check_quantization(body)
            elif marker == DRI:
                self._units_per_interval = int.from_bytes(body)
            elif marker in SEQUENTIAL_FRAMES or marker == PROGRESSIVE_FRAME:
                self._is_progressive = marker == PROGRESSIVE_FRAME
                self._read_frame(body)
            elif marker in OTHER_FRAMES:
                raise ValueError(f"its coding process (SOF{marker - 0xC0}) is not supported")
        else:
            raise ValueError("it has too many small chunks")
        if not self._components or any(bit != 0 for each in self._components.values() for bit in each.low_bits):
            raise ValueError("its scans do not give every coefficient of the picture")

    def _next_marker(self) -> int:
        found = MARKER.match(self._content, self._at)
        if found is None:
            is_end = self._at >= len(self._content) - 1
            raise ValueError("it ends before its end marker" if is_end else f"expected a marker at byte {self._at}")
        self._at = found.end()
        return found[1][0]

    def _next_body(self, marker: int) -> bytes:
        end = self._at + int.from_bytes(self._content[self._at : self._at + 2])
        body = self._content[self._at + 2 : end]
        if end < self._at + 2 or end > len(self._content):
            raise ValueError(f"its segment {marker:#x} at byte {self._at} is broken off")
        self._at = end
        return body

    def _read_frame(self, body: bytes) -> None:
        if self._components:
            raise ValueError("it has two frames")
        height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
        entries = [(body[i], body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, 6 + 3 * body[5], 3)]
        widest, highest = max(h for _, h, _ in entries), max(v for _, _, v in entries)
        self._num_units = math.ceil(width / (8 * widest)) * math.ceil(height / (8 * highest))
        self._components = {
            name: Component(
                horizontal=h,
                vertical=v,
                columns=math.ceil(math.ceil(width * h / widest) / 8),
                rows=math.ceil(math.ceil(height * v / highest) / 8),
            )
            for name, h, v in entries
        }

    def _read_tables(self, body: bytes) -> None:
        table = kept_table if len(self._content) < MAX_BYTES_FOR_KEPT_TABLES else CodeTable
        while body:
            counts, end = body[1:17], 17 + sum(body[1:17])
            self._tables[body[0]] = table(counts, body[17:end])
            body = body[end:]

    def _check_scan(self, body: bytes) -> None:
        self._num_scans += 1
        if self._num_scans > MAX_SCANS:
            raise ValueError(f"it has more than {MAX_SCANS} scans")
        first, last, bits = (body[i + 2 * body[0]] for i in (1, 2, 3))
        members = [(self._components[body[i]], body[i + 1]) for i in range(1, 1 + 2 * body[0], 2)]
        self._advance([component for component, _ in members], first, last, bits >> 4, bits & 15)
        is_alone = len(members) == 1
        scan = Scan(
            blocks=[
                (self._tables.get(tables >> 4), self._tables.get(16 + (tables & 15)))
                for component, tables in members
                for _ in range(1 if is_alone else component.horizontal * component.vertical)
            ],
            first=first,
            last=last,
            is_refinement=bits >> 4 > 0,
            history=members[0][0].history,
        )
        num_units = members[0][0].columns * members[0][0].rows if is_alone else self._num_units
        if first and not scan.history:
            scan.history.extend([0] * num_units)
        length = self._units_per_interval or num_units
        begin = 0
        for interval in self._intervals():
            if begin >= num_units:
                raise ValueError("it has more restart intervals than its picture")
            end = min(begin + length, num_units)
            Interval(interval).check(scan, begin, end, is_progressive=self._is_progressive)
            begin = end
        if begin < num_units:
            raise ValueError("it has fewer restart intervals than its picture")

    def _advance(self, components: list[Component], first: int, last: int, high: int, low: int) -> None:
        """Record which bits of which coefficients a scan gives, or raise if it is not the turn of these."""
        if self._is_progressive:
            is_valid = (last == 0 if first == 0 else len(components) == 1) and first <= last < 64
            is_valid &= high in (0, low + 1)
        else:
            is_valid = (first, last, high, low) == (0, 63, 0, 0)
        for component in components:
            expected = high or None
            is_valid &= all(bit == expected for bit in component.low_bits[first : last + 1])
            is_valid &= first == 0 or component.low_bits[0] is not None
            component.low_bits[first : last + 1] = [low] * (last + 1 - first)
        if not is_valid:
            raise ValueError(f"its scan {self._num_scans} is out of order")

    def _intervals(self) -> Iterator[bytes]:
        """Yield the data of a scan up to each restart marker and to the next segment."""
        for number in range(len(self._content)):
            begin = self._at
            found = MARKER.search(self._content, begin)
            if found is None:
                raise ValueError("it ends before its end marker")
            yield self._content[begin : found.start()].replace(b"\xff\0", b"\xff")
            if found[1][0] & 0xF8 != RST0:
                self._at = found.start()
                return
            if found[1][0] != RST0 + number % 8:
                raise ValueError(f"its restart marker at byte {found.start()} is out of order")
            self._at = found.end()


def _check_quantization(body: bytes) -> None:
    """Raise ValueError for a step of 0, by which a decoder would make coefficients vanish (B.2.4.1)."""
    while body:
        size = 1 + (body[0] >> 4)
        table, body = body[1 : 1 + 64 * size], body[1 + 64 * size :]
        if b"\0" * size in (table[i : i + size] for i in range(0, len(table), size)):
            raise ValueError("its quantization table has a step of 0")
