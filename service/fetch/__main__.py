"""Fetch bundles by digest, verify them, and place them where the service reads them.

    python -m service.fetch s3://models/mnist-cnn/fc4708d186bb@sha256:DIGEST --bundles /bundles
    python -m service.fetch https://models.example/mnist-cnn/fc4708d186bb@sha256:DIGEST
    python -m service.fetch /mnt/models/mnist-cnn/fc4708d186bb@sha256:DIGEST
    python -m service.fetch oci://registry.example/bundles@sha256:DIGEST
    python -m service.fetch --candidate oci://registry.example/bundles@sha256:DIGEST

DIGEST of a folder is what `sha256sum manifest.json` prints in it; that of an OCI artifact is the digest of its
manifest. A version becomes the one that serves, or with --candidate the candidate that is compared with that one. With
EKIBEN_TRUSTED_KEYS, every bundle needs a signature by one of the keys. Either all sources appear among the bundles, or
none. Exit codes: 0 all are there, 1 one could not be fetched or failed a check, 2 usage, such as two
versions of one model that would serve, 130 interrupted, 143 terminated.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from service.fetch.source import ConflictError, FetchError, parse_source

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    # The kernel ignores this signal for process 1, such as in an init container, while it has no handler for it.
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return _fetch(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    """End, after what was staged is removed."""
    sys.exit(EXIT_TERMINATED)


def _fetch(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m service.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", metavar="PLACE@sha256:DIGEST", help="what to fetch, and its digest")
    parser.add_argument(
        "--candidate",
        dest="candidates",
        action="append",
        default=[],
        metavar="PLACE@sha256:DIGEST",
        help="what to fetch as a candidate, beside the version that serves; may be repeated",
    )
    parser.add_argument(
        "--bundles",
        type=Path,
        default=Path(os.environ.get("EKIBEN_BUNDLES") or "bundles"),
        help="folder of the bundles (default: EKIBEN_BUNDLES, or bundles)",
    )
    args = parser.parse_intermixed_args(argv)
    try:
        sources = [parse_source(text) for text in args.sources]
        sources += [parse_source(text, "candidate") for text in args.candidates]
    except ValueError as error:
        parser.error(str(error))
    if not sources:
        parser.error("expected at least one PLACE@sha256:DIGEST")
    from service.fetch.artifact import fetch_artifact  # noqa: PLC0415 - SIGTERM is answered while these are imported
    from service.fetch.bundle_files import fetch_files  # noqa: PLC0415
    from service.fetch.staging import Staging  # noqa: PLC0415

    lines = []
    try:
        with Staging(args.bundles) as staging:
            for source in sources:
                lines += (fetch_artifact if source.is_artifact else fetch_files)(source, staging)
            staging.place_all()
    except FetchError as error:
        print(f"python -m service.fetch: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, ConflictError) else 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
