"""Reads the Huffman codes of a JPEG scan without computing a pixel (ITU-T T.81, annexes F and G).

Invariant: a scan passes only if its codes are defined, no block has more coefficients than it may, and its data ends
with its last block. libjpeg fills in what is missing and goes on; the only trace is a warning, which Pillow drops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# The longest Huffman code, and the bits that a table looks at.
WINDOW_BITS = 16
MAX_DC_BITS, MAX_AC_BITS = 11, 10
# A step over AC coefficients is `coefficients << 6 | bits`; one that ends its block has so many coefficients more.
END_OF_BLOCK = 1000
# Of a table that is kept for the next picture: most encoders write the four tables of annex K.
MAX_KEPT_ENTRIES = 1 << 13
NUM_KEPT_TABLES = 8
TOO_MANY = "its data has a block of more coefficients than its scan"
# A list of numbers is read faster than an array, and takes ten times its memory.
MAX_LISTED_BYTES = 1 << 16


class CodeTable(dict[int, int]):
    """Maps the next 16 bits of the data to `length << 8 | value` of the code that they begin with, made when read."""

    def __init__(self, counts: bytes, values: bytes, *, max_entries: int = 1 << WINDOW_BITS) -> None:
        super().__init__()
        self.max_entries = max_entries
        self._values = values
        self._ranges: list[tuple[int, int, int]] = []
        code = 0
        for length, count in enumerate(counts, 1):
            self._ranges.append((length, code, code + count))
            code = (code + count) << 1
        self.dc, self.ac = DcSteps(self), AcSteps(self)

    def __missing__(self, window: int) -> int:
        begin = 0
        for length, first, end in self._ranges:
            code = window >> (WINDOW_BITS - length)
            if code < end:
                entry = length << 8 | self._values[begin + code - first]
                return _record(self, window, entry, self.max_entries)
            begin += end - first
        raise ValueError("its data has an undefined Huffman code")


class DcSteps(dict[int, int]):
    """Maps the next 16 bits to the number of bits that a DC difference takes."""

    def __init__(self, table: CodeTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, window: int) -> int:
        length, size = divmod(self._table[window], 256)
        if size > MAX_DC_BITS:
            raise ValueError(f"its data has a DC difference of {size} bits")
        return _record(self, window, length + size, self._table.max_entries)


class AcSteps(dict[int, int]):
    """Maps the next 16 bits to one step over as many AC coefficients of a sequential block as they name."""

    def __init__(self, table: CodeTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, window: int) -> int:
        step = self.first(window)
        while step >> 6 < END_OF_BLOCK and (used := step & 63) < WINDOW_BITS:
            rest = window << used & 0xFFFF
            try:
                # A code counts only if all of it stands in the window.
                if used + (self._table[rest] >> 8) > WINDOW_BITS:
                    break
                step += self.first(rest)
            except ValueError:
                break
        return _record(self, window, step, self._table.max_entries)

    def first(self, window: int) -> int:
        """Return the step over the first code alone."""
        entry = self._table[window]
        length, run, size = entry >> 8, entry >> 4 & 15, entry & 15
        if size > MAX_AC_BITS:
            raise ValueError(f"its data has a coefficient of {size} bits")
        if size or run == 15:
            return (run + 1) << 6 | (length + size)
        if run:
            raise ValueError("its data has a code that sequential scans do not have")
        return END_OF_BLOCK << 6 | length


def _record(steps: dict[int, int], window: int, entry: int, max_entries: int) -> int:
    if len(steps) >= max_entries:
        steps.clear()
    steps[window] = entry
    return entry


@lru_cache(maxsize=NUM_KEPT_TABLES)
def kept_table(counts: bytes, values: bytes) -> CodeTable:
    return CodeTable(counts, values, max_entries=MAX_KEPT_ENTRIES)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan codes: in each of its units (MCUs) these blocks, each by its DC and AC table, and these coefficients.

    `history` of a progressive AC scan has one number a block; its bit k is set if coefficient k is known not to be 0.
    """

    blocks: Sequence[tuple[CodeTable | None, CodeTable | None]]
    first: int
    last: int
    is_refinement: bool
    history: list[int]


class Interval:
    """The data between two restart markers, without stuffed zeros."""

    def __init__(self, data: bytes) -> None:
        self._num_bits = 8 * len(data)
        content = np.frombuffer(data + bytes(8), np.uint8).astype(np.uint32)
        words = content[:-3] << 24 | content[1:-2] << 16 | content[2:-1] << 8 | content[3:]
        # Word i has the 32 bits from byte i on.
        self._words: Sequence[int] = words.tolist() if len(data) < MAX_LISTED_BYTES else words.data

    def check(self, scan: Scan, begin: int, end: int, *, is_progressive: bool) -> None:
        """Raise ValueError unless the data codes the units from `begin` to `end` of the scan, and nothing more."""
        try:
            if not is_progressive:
                position = self._sequential(scan, end - begin)
            elif scan.first == 0:
                position = self._dc(scan, end - begin)
            elif scan.is_refinement:
                position = self._ac_refinement(scan, begin, end)
            else:
                position = self._ac(scan, begin, end)
        except IndexError:
            position = self._num_bits + 1
        if position > self._num_bits:
            raise ValueError("its data ends before its last block")
        if position <= self._num_bits - 8:
            num_bytes = (self._num_bits - position) // 8
            raise ValueError(f"its data has {num_bytes} bytes more than its blocks")

    def _sequential(self, scan: Scan, num_units: int) -> int:
        words, position = self._words, 0
        blocks = [(_of(dc).dc, _of(ac).ac) for dc, ac in scan.blocks]
        for _ in range(num_units):
            for dc, ac in blocks:
                position += dc[words[position >> 3] >> (16 - (position & 7)) & 0xFFFF]
                k = 1
                while k < 64:
                    window = words[position >> 3] >> (16 - (position & 7)) & 0xFFFF
                    step = ac[window]
                    k += step >> 6
                    if 64 < k < END_OF_BLOCK or k >= END_OF_BLOCK + 64:
                        # The block ended within the step, or has too many coefficients.
                        k -= step >> 6
                        step = ac.first(window)
                        k += step >> 6
                        if 64 < k < END_OF_BLOCK:
                            raise ValueError(TOO_MANY)
                    position += step & 63
        return position

    def _dc(self, scan: Scan, num_units: int) -> int:
        if scan.is_refinement:
            return num_units * len(scan.blocks)
        words, position = self._words, 0
        blocks = [_of(dc).dc for dc, _ in scan.blocks]
        for _ in range(num_units):
            for dc in blocks:
                position += dc[words[position >> 3] >> (16 - (position & 7)) & 0xFFFF]
        return position

    def _ac(self, scan: Scan, block: int, end: int) -> int:
        words, position, history = self._words, 0, scan.history
        codes = _of(scan.blocks[0][1])
        while block < end:
            k, known, num_blocks = scan.first, history[block], 1
            while k <= scan.last:
                entry = codes[words[position >> 3] >> (16 - (position & 7)) & 0xFFFF]
                position += entry >> 8
                run, size = entry >> 4 & 15, entry & 15
                if size == 0 and run < 15:
                    num_blocks = self._num_ended_blocks(position, run)
                    position += run
                    break
                k += run
                if k > scan.last or size > MAX_AC_BITS:
                    raise ValueError(TOO_MANY)
                if size:
                    known |= 1 << k
                    position += size
                k += 1
            history[block] = known
            block += num_blocks
        if block > end:
            raise ValueError("its data ends more blocks than there are")
        return position

    def _ac_refinement(self, scan: Scan, block: int, end: int) -> int:
        words, position, history = self._words, 0, scan.history
        codes = _of(scan.blocks[0][1])
        band = (1 << scan.last + 1) - (1 << scan.first)
        while block < end:
            known, num_blocks = history[block], 1
            new, left = 0, band
            while left:
                entry = codes[words[position >> 3] >> (16 - (position & 7)) & 0xFFFF]
                position += entry >> 8
                run, size = entry >> 4 & 15, entry & 15
                if size == 0 and run < 15:
                    num_blocks = self._num_ended_blocks(position, run)
                    position += run
                    break
                # The step ends at the zero after `run` others, and gives one bit for each coefficient on its way.
                zeros = left & ~known
                for _ in range(run):
                    zeros &= zeros - 1
                if not zeros or size > 1:
                    raise ValueError(TOO_MANY)
                target = zeros & -zeros
                position += size + (left & known & target - 1).bit_count()
                new |= target if size else 0
                left &= -target << 1
            if num_blocks > end - block:
                raise ValueError("its data ends more blocks than there are")
            # The blocks that end here give one bit for each coefficient that is left.
            position += (left & known).bit_count()
            position += sum((band & each).bit_count() for each in history[block + 1 : block + num_blocks])
            history[block] = known | new
            block += num_blocks
        return position

    def _num_ended_blocks(self, position: int, num_bits: int) -> int:
        """Return for how many blocks, this one included, no further code follows; `num_bits` bits say it."""
        window = self._words[position >> 3] >> (16 - (position & 7)) & 0xFFFF
        return (1 << num_bits) + (window >> WINDOW_BITS - num_bits)


def _of(table: CodeTable | None) -> CodeTable:
    if table is None:
        raise ValueError("it lacks a Huffman table")
    return table
