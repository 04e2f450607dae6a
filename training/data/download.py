"""Resolution of `--data` to a path on disk.

A path is used unchanged. A URL must end with the hash of its content:
`https://host/file.tar.gz#sha256=<64 hex digits>`. A download with another hash is deleted and refused.
"""

import re
from pathlib import Path

import pooch

CACHE = Path.home() / ".cache" / "ekiben"


def fetch(source: str, cache: Path = CACHE) -> Path:
    """The path of `source`; a URL that `cache` does not hold yet is downloaded into it with a progress bar.

    Raises ValueError for a URL without a hash, for content with another hash and for a failed download.
    """
    if not re.match(r"[a-z]+://", source):
        return Path(source).expanduser()
    url, _, fragment = source.partition("#")
    fragment_match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--data {source}: expected a path or an http(s) URL")
    if fragment_match is None:
        raise ValueError(f"--data {source}: a URL must end with #sha256=<64 hex digits>, the hash of its content")
    sha256 = fragment_match[1].lower()
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=60)
    try:
        file = pooch.retrieve(url, f"sha256:{sha256}", fname=name, path=cache / sha256[:12], downloader=downloader)
    except ValueError as error:
        raise ValueError(f"--data {url}: {error}") from error
    except OSError as error:
        raise ValueError(f"--data {url}: the download failed: {error}") from error
    return Path(file)
