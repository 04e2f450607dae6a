"""From what `--data` names to a path on disk.

A path is used as it is. A URL must carry the hash of its content, `https://host/file.tar.gz#sha256=<64 hex digits>`:
what is downloaded is what was meant, or nothing is.
"""

import re
from pathlib import Path

import pooch

CACHE = Path.home() / ".cache" / "ekiben"


def fetch(source: str, cache: Path = CACHE) -> Path:
    """The path that `source` names, downloaded into `cache` with a progress bar when it is a URL not yet there.

    Raises ValueError for a URL without a hash, for content of another hash and for a server that gives none.
    """
    if not re.match(r"[a-z]+://", source):
        return Path(source).expanduser()
    url, _, fragment = source.partition("#")
    digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--data {source}: expected a path or an http(s) URL")
    if digest is None:
        raise ValueError(f"--data {source}: a URL must end with #sha256=<64 hex digits> of what it names")
    known = digest[1].lower()
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=60)
    try:
        file = pooch.retrieve(url, f"sha256:{known}", fname=name, path=cache / known[:12], downloader=downloader)
    except ValueError as error:
        raise ValueError(f"--data {url}: {error}") from error
    except OSError as error:
        raise ValueError(f"--data {url}: the download failed: {error}") from error
    return Path(file)
