"""Files of keys for tests, and the keys in them."""

from pathlib import Path

from service.keys.key_file import digest_key, new_key


def write_keys(path: Path, **fields: str) -> dict[str, str]:
    """Write a file with one key for each name, with these fields; return the keys by name."""
    keys = {name: new_key() for name in fields}
    lines = [f"{name} sha256={digest_key(keys[name]).hex()} {more}\n" for name, more in fields.items()]
    replacement = path.with_suffix(".new")
    replacement.write_text("# name, hash, limits\n\n" + "".join(lines))
    replacement.chmod(0o600)
    replacement.replace(path)
    return keys
