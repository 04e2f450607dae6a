"""A line of the file of keys is understood whole or refused."""

import hashlib
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.keys.key_file import Key, digest_key, new_key, parse_key_file, read_keys

HASH = "ab" * 32


def parse(line: str) -> Key:
    (key,) = parse_key_file(line.encode())
    return key


def test_a_line_holds_a_name_a_hash_scopes_and_limits() -> None:
    fields = "scopes=infer,models rate=2.5 burst=7 concurrency=3 expires=2027-01-01"
    key = parse(f"alice sha256={HASH} {fields}")
    assert (key.name, key.digest, key.scopes) == ("alice", b"\xab" * 32, {"infer", "models"})
    assert (key.rate, key.burst, key.concurrency) == (2.5, 7, 3)
    assert key.expires_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_what_is_not_given_is_not_limited() -> None:
    key = parse(f"a sha256={HASH} scopes=admin")
    assert (key.rate, key.burst, key.concurrency, key.expires_at) == (0.0, 0, 0, math.inf)


@pytest.mark.parametrize(("rate", "burst"), [("0.5", 1), ("1", 1), ("2.5", 3), ("100", 100)])
def test_without_a_burst_that_of_one_second_is_admitted(rate: str, burst: int) -> None:
    assert parse(f"a sha256={HASH} scopes=infer rate={rate}").burst == burst


def test_a_time_may_have_a_zone() -> None:
    key = parse(f"a sha256={HASH} scopes=infer expires=2027-01-01T12:00:00+02:00")
    assert key.expires_at == datetime(2027, 1, 1, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "expected at least one key"),
        ("# nobody", "expected at least one key"),
        ("alice", "line 1: sha256= is missing"),
        (f"alice sha256={HASH}", "line 1: scopes= is missing"),
        (f"alice sha256={HASH} scopes=", "line 1: expected sha256=, scopes="),
        (f"alice sha256={HASH} scopes=read", "line 1: scopes: expected infer, models, metrics, admin, got 'read'"),
        (f"alice sha256={HASH} scopes=infer,", "line 1: scopes: expected infer, models, metrics, admin, got ''"),
        (f"\nal/ice sha256={HASH} scopes=infer", "line 2: expected a name"),
        (f"{'a' * 65} sha256={HASH} scopes=infer", "line 1: expected a name"),
        (f"alice sha256={HASH.upper()} scopes=infer", "line 1: sha256: expected 64 hexadecimal digits in lower case"),
        (f"alice sha256={HASH[1:]} scopes=infer", "line 1: sha256: expected 64"),
        (f"alice sha256={HASH} scopes=infer rat=3", "got 'rat=3'"),
        (f"alice sha256={HASH} scopes=infer scopes=admin", "line 1: scopes is given twice"),
        (f"alice sha256={HASH} scopes=infer rate=0", "line 1: rate: expected requests per second"),
        (f"alice sha256={HASH} scopes=infer rate=-1", "line 1: rate"),
        (f"alice sha256={HASH} scopes=infer rate=nan", "line 1: rate"),
        (f"alice sha256={HASH} scopes=infer rate=1e3", "line 1: rate"),
        (f"alice sha256={HASH} scopes=infer burst=3", "line 1: burst= needs rate="),
        (f"alice sha256={HASH} scopes=infer concurrency=0", "line 1: concurrency: expected a whole number"),
        (f"alice sha256={HASH} scopes=infer expires=soon", "line 1: expires: expected a date"),
        (f"alice sha256={HASH} scopes=infer expires=2027-01-01T12:00:00", "line 1: expires: expected a date"),
        (f"a sha256={HASH} scopes=infer\na sha256={'00' * 32} scopes=infer", "line 2: the name 'a' is given twice"),
        (f"a sha256={HASH} scopes=infer\nb sha256={HASH} scopes=infer", "line 2: 'b' has the hash of 'a'"),
        ("\ufffd", "line 1: expected a name"),
    ],
)
def test_what_cannot_be_a_line_is_named(lines: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_key_file(lines.encode())


def test_a_key_in_place_of_its_hash_is_not_quoted() -> None:
    key = new_key()
    with pytest.raises(ValueError, match="sha256: expected") as caught:
        parse(f"alice sha256={key} scopes=infer")
    assert key not in str(caught.value)


def test_keys_are_long_random_and_recognisable() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith("ek_") and len(key) == 3 + 43 for key in keys)  # 43 characters of 6 bits: 256 bits


def test_the_hash_is_sha256() -> None:
    assert digest_key("ek_x") == hashlib.sha256(b"ek_x").digest()


@pytest.mark.parametrize("text", ["", "é", "k" * 257])
def test_what_no_key_can_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        digest_key(text)


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o644, False), (0o660, True), (0o646, True)])
def test_a_file_that_others_may_write_to_is_refused(mode: int, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"a sha256={HASH} scopes=infer\n")
    path.chmod(mode)
    if refused:
        with pytest.raises(ValueError, match="others may write to it"):
            read_keys(path)
    else:
        assert [key.name for key in read_keys(path)] == ["a"]


def test_a_folder_is_no_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a file"):
        read_keys(tmp_path)
