"""Change PNG and JPEG files at random: each must be refused, or have the pixels of a strict decoder.

    python -m benchmarks.proof.picture_fuzz [--inputs 20000] [--seed 0]

The reference is `benchmarks.proof.strict_pictures`; for interlaced PNG and for colour and progressive JPEG, of which it
has no decoder, only errors of another kind than a refusal count. Memory is compared after a tenth of the inputs and at
the end.
"""

import argparse
import random
import struct
import sys
import zlib
from collections import Counter
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image

from benchmarks.proof.strict_pictures import decode_grey_jpeg, decode_png
from service.contract.readers import ImageSpec
from service.errors import EkibenError
from service.tasks.codecs.images import PNG_START, decode_image

SIZE = 28
SPECS = {1: ImageSpec(height=SIZE, width=SIZE, mode="L"), 3: ImageSpec(height=SIZE, width=SIZE, mode="RGB")}
MAX_GROWTH_BYTES = 8 << 20
# Decoders round the inverse transform in different ways.
TOLERANCE = {"PNG": 0.0, "JPEG": 1.5}
# Changed factors can give samples far beyond 0 to 255, which libjpeg does not compute as the specification says.
LOWEST, HIGHEST = -256, 511
REFUSALS = (ValueError, KeyError, IndexError, struct.error, zlib.error)


def seeds() -> list[bytes]:
    """Files of both formats, grey and colour, with the options that change how they are read."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    options: list[tuple[str, dict[str, Any]]] = [
        ("PNG", {}),
        ("PNG", {"compress_level": 0}),
        ("JPEG", {}),
        ("JPEG", {"optimize": True}),
        ("JPEG", {"restart_marker_blocks": 3}),
        ("JPEG", {"progressive": True}),
    ]
    return [_file(picture, kind, **each) for picture in (colour.convert("L"), colour) for kind, each in options]


def _file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change one to five places: flip a bit, replace, delete, insert, repeat or cut; correct some checksums."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        begin = max(2, changed.find(b"\xff\xda") + 8) if rng.random() < 0.5 else 2
        at, length = rng.randrange(min(begin, len(changed) - 1), len(changed)), rng.choice((1, 1, 2, 4, 30))
        match rng.randrange(7):
            case 0 | 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at] = rng.choice((0, 0xFF, rng.randrange(256)))
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = rng.randbytes(length)
            case 5:
                changed[at:at] = changed[at : at + length]
            case _:
                del changed[at if rng.random() < 0.2 else max(at, len(changed) - length) :]
        if len(changed) < 30:
            break
    return _with_checksums(bytes(changed)) if content.startswith(PNG_START) and rng.random() < 0.6 else bytes(changed)


def _with_checksums(png: bytes) -> bytes:
    """Correct the checksums of the chunks, so that a change is met behind them."""
    at, parts = 8, [png[:8]]
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
        at += 12 + length
    return b"".join(parts)


def fault_of(content: bytes, seed: bytes) -> tuple[str, str | None]:
    """Return what became of a changed file, and what is wrong about it or None."""
    is_png = content.startswith(PNG_START)
    is_colour = Image.open(BytesIO(seed)).mode == "RGB"
    try:
        pixels = decode_image(content, SPECS[3 if is_colour else 1], "/images/0")
    except EkibenError as error:
        return "refused", None if error.slug == "invalid-request" else f"the error {error.slug}"
    except Exception as error:  # noqa: BLE001 - any other error would be a 500
        return "crashed", repr(error)
    if not is_png and (is_colour or b"\xff\xc2" in content):
        return "accepted, not compared", None
    return "accepted", difference(content, pixels)


def difference(content: bytes, pixels: npt.NDArray[np.uint8]) -> str | None:
    """Return how a strict decoder disagrees about a grey JPEG or a PNG, or None."""
    is_png = content.startswith(PNG_START)
    try:
        reference = decode_png(content) if is_png else decode_grey_jpeg(content)
    except REFUSALS as error:
        return f"a strict decoder refuses it: {error!r}"
    if reference.min() < LOWEST or reference.max() > HIGHEST:
        return None
    largest = np.abs(reference.clip(0, 255) - pixels.reshape(SIZE, SIZE, -1)).max()
    return None if largest <= TOLERANCE["PNG" if is_png else "JPEG"] else f"pixels differ by {largest}"


def search(num_inputs: int, seed: int) -> tuple[Counter[str], list[str], int]:
    """Return how many files had each outcome, what is wrong, and by how many bytes memory grew."""
    rng, files, counts, found = random.Random(seed), seeds(), Counter[str](), list[str]()
    process, before = psutil.Process(), 0
    for number in range(num_inputs):
        original = rng.choice(files)
        outcome, fault = fault_of(mutate(original, rng), original)
        counts[outcome] += 1
        if fault:
            found.append(f"input {number}: {fault}")
        if number == num_inputs // 10:
            before = process.memory_info().rss
    return counts, found, process.memory_info().rss - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts, found, growth = search(args.inputs, args.seed)
    for outcome, count in counts.most_common():
        print(f"{outcome:>24}  {count:,}")
    print(f"{'faults':>24}  {len(found):,}")
    print(f"{'memory growth':>24}  {growth / 2**20:+.1f} MiB")
    for line in found[:10]:
        print(line)
    sys.exit(bool(found) or growth > MAX_GROWTH_BYTES)


if __name__ == "__main__":
    main()
