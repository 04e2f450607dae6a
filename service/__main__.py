"""Serve the bundles: python -m service [--host 127.0.0.1] [--port 3000] [--workers 1]

Everything else is set by EKIBEN_* environment variables (docs have the table).
"""

import argparse
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m service", description="Serve the bundles.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes; one for each GPU; on a CPU up to its cores, and with as many each stays on one",
    )
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f"--workers: expected at least 1, got {args.workers}")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    from service.host import Host  # noqa: PLC0415 - the application takes seconds to import: not for --help
    from service.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(str(error))
    Host(settings, address=args.host, port=args.port, workers=args.workers).run()


if __name__ == "__main__":
    main()
