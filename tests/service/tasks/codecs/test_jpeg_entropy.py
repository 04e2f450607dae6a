"""The data of a scan is read to its last bit, or refused."""

import pytest

from service.tasks.codecs.jpeg_entropy import MAX_KEPT_ENTRIES, CodeTable, Interval, Scan, kept_table

# DC: 0 -> no bits, 10 -> one bit. AC: 0 -> end of block, 10 -> one coefficient of one bit, 110 -> 16 zeros.
DC = CodeTable(bytes([1, 1, *[0] * 14]), bytes([0, 1]))
AC = CodeTable(bytes([1, 1, 1, *[0] * 13]), bytes([0x00, 0x01, 0xF0]))
COEFFICIENT = "101"


def bits(text: str) -> bytes:
    text = text.replace(" ", "")
    text += "1" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def check(
    text: str, num_blocks: int = 1, *, progressive: bool = False, first: int = 0, last: int = 63, **more: object
) -> Scan:
    scan = Scan(
        blocks=[(DC, AC)],
        first=first,
        last=last,
        is_refinement=bool(more.get("refinement")),
        history=list(more.get("history", [0] * num_blocks)),  # type: ignore[call-overload]
    )
    Interval(bits(text)).check(scan, 0, num_blocks, is_progressive=progressive)
    return scan


@pytest.mark.parametrize(
    "block",
    ["0 0", "10 1 0", "0 101 101 0", "0 110 110 110 101 0", "0" + COEFFICIENT * 63, "0" + COEFFICIENT * 62 + "0"],
)
@pytest.mark.parametrize("num_blocks", [1, 2, 9])
def test_whole_sequential_blocks_pass(block: str, num_blocks: int) -> None:
    check(block * num_blocks, num_blocks)


@pytest.mark.parametrize(
    ("text", "num_blocks", "reason"),
    [
        ("0 101 101 0", 2, "ends before its last block|undefined"),
        ("0 0 0", 3, "ends before its last block|undefined"),
        ("", 1, "ends before its last block"),
        ("0 0" + "1" * 14, 1, "1 bytes more than its blocks"),
        ("0" + COEFFICIENT * 60 + "110 0", 1, "more coefficients"),
        ("0" + COEFFICIENT * 64 + "0" * 6, 1, "bytes more|more coefficients|undefined"),
        ("0 111", 1, "undefined Huffman code"),
        ("11", 1, "undefined Huffman code"),
    ],
)
def test_broken_sequential_blocks_are_refused(text: str, num_blocks: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check(text, num_blocks)


def test_codes_that_8_bit_pictures_do_not_have_are_refused() -> None:
    large_dc, large_ac = CodeTable(bytes([1, *[0] * 15]), b"\x0c"), CodeTable(bytes([1, *[0] * 15]), b"\x0b")
    run = CodeTable(bytes([1, *[0] * 15]), b"\x20")
    for dc, ac, reason in ((large_dc, AC, "difference of 12"), (DC, large_ac, "of 11 bits"), (DC, run, "sequential")):
        scan = Scan(blocks=[(dc, ac)], first=0, last=63, is_refinement=False, history=[])
        with pytest.raises(ValueError, match=reason):
            Interval(bytes(8)).check(scan, 0, 1, is_progressive=False)


def test_progressive_scan_records_its_coefficients() -> None:
    assert check("101 101 0 0", 2, progressive=True, first=1, last=5).history == [0b110, 0]
    assert check("101" * 5, 1, progressive=True, first=1, last=5).history == [0b111110]
    with pytest.raises(ValueError, match="more coefficients than its scan"):
        check("110 0", 1, progressive=True, first=1, last=5)
    # 1110 and one bit end two or three blocks.
    run = CodeTable(bytes([0, 1, *[0] * 14]), b"\x10")
    scan = Scan(blocks=[(None, run)], first=1, last=5, is_refinement=False, history=[0] * 2)
    Interval(bits("00 0")).check(scan, 0, 2, is_progressive=True)
    with pytest.raises(ValueError, match="more blocks than there are"):
        Interval(bits("00 1")).check(scan, 0, 2, is_progressive=True)


def test_refinement_takes_one_bit_for_each_known_coefficient() -> None:
    # Coefficient 1 is known; the new one stands at 2, with its sign and the bit of coefficient 1; then the block ends.
    known = [0b10]
    assert check("10 1 1 0", 1, progressive=True, first=1, last=5, refinement=True, history=known).history == [0b110]
    assert check("0 1", 1, progressive=True, first=1, last=5, refinement=True, history=known).history == known
    many = [0b11111111110]
    check("0" + "1" * 10, 1, progressive=True, first=1, last=10, refinement=True, history=many)
    with pytest.raises(ValueError, match="ends before"):
        check("0", 1, progressive=True, first=1, last=10, refinement=True, history=many)
    with pytest.raises(ValueError, match="more coefficients"):
        check("10 1" + "1" * 10, 1, progressive=True, first=1, last=10, refinement=True, history=many)


def test_progressive_dc_scans() -> None:
    check("0 10 1 0", 3, progressive=True, last=0)
    check("1" * 9, 9, progressive=True, last=0, refinement=True)
    with pytest.raises(ValueError, match="ends before"):
        check("1" * 8, 9, progressive=True, last=0, refinement=True)


def test_kept_tables_stay_small() -> None:
    table = kept_table(bytes([1, 1, 1, *[0] * 13]), bytes([0x00, 0x01, 0xF0]))
    assert kept_table(bytes([1, 1, 1, *[0] * 13]), bytes([0x00, 0x01, 0xF0])) is table
    for window in range(1 << 15):
        assert table.ac[window] > 0
    assert len(table.ac) <= MAX_KEPT_ENTRIES
    assert len(table) <= MAX_KEPT_ENTRIES
