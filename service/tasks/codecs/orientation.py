"""The orientation of a picture, which cameras note beside its pixels in EXIF or XMP data.

Invariant: a picture is turned as PIL.ImageOps.exif_transpose turns it, but no other tag is read: Pillow would decode
them all, and warn about each broken one. Data that cannot be read turns nothing.
"""

import re
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image as Pillow

TAG = 0x0112
TYPES = {3: 2, 4: 4}  # SHORT and LONG, in bytes
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
PREFIX = re.compile(rb"(Exif\0\0){0,2}")
XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
SOURCES = {"exif", "xmp", "Raw profile type exif"}
TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}


def upright(image: Pillow.Image, info: Mapping[Any, Any]) -> Pillow.Image:
    """Turn the image as the metadata in `info` of the opened file says."""
    if SOURCES.isdisjoint(info):
        return image
    turn = TURNS.get(_orientation(info))
    return image if turn is None else image.transpose(turn)


def _orientation(info: Mapping[Any, Any]) -> int:
    exif = info.get("exif")
    if exif is None and (profile := info.get("Raw profile type exif")):
        exif = _unhexed(profile)
    found = None if exif is None else _tag(exif)
    if found is None and (xmp := info.get("xmp")) and (match := XMP.search(xmp)):
        found = int(match[1])
    return found or 1


def _unhexed(profile: str) -> bytes:
    try:
        return bytes.fromhex("".join(profile.split("\n")[3:]))
    except ValueError:
        return b""


def _tag(exif: bytes) -> int | None:
    """Return the orientation in the first directory of a TIFF header, or None."""
    start = PREFIX.match(exif)
    tiff = exif[start.end() if start else 0 :]
    order = BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return None
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    count = int.from_bytes(tiff[at : at + 2], "little" if order == "<" else "big")
    entries = tiff[at + 2 : at + 2 + 12 * count]
    found = None
    for tag, kind, number, value in struct.iter_unpack(order + "HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == TAG and kind in TYPES and number == 1:
            found = int.from_bytes(value[: TYPES[kind]], "little" if order == "<" else "big")
    return found
