"""Serve the bundles: python -m service [--host 127.0.0.1] [--port 3000] [--workers 1|auto] [--bundles DIR]

Everything else is set by EKIBEN_* environment variables (docs have the table).
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.container.limits import available_cores
from service.engine.process.port import claim_port


def command_parser(parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = parser_class(
        prog="python -m service", description="Serve the bundles. All else is set by EKIBEN_* environment variables."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on (default: 3000)")
    workers_help = (
        "worker processes, at most one per CPU core (with one per core, each is pinned); auto: one per core that the "
        "container may use; with several GPUs, each worker has one of those that CUDA_VISIBLE_DEVICES leaves, in turn"
    )
    parser.add_argument("--workers", type=_num_workers, default=1, metavar="N|auto", help=workers_help)
    bundles_help = "folder of the bundles, instead of EKIBEN_BUNDLES (default: bundles)"
    parser.add_argument("--bundles", type=Path, metavar="DIR", help=bundles_help)
    return parser


def main(
    argv: Sequence[str] | None = None, parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser
) -> None:
    # The kernel ignores these signals for process 1, such as in a container, while it has no handler for them.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    parser = command_parser(parser_class)
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f"--workers: expected at least 1, got {args.workers}")
    if not 1 <= args.port <= 65535:
        parser.error(f"--port: expected 1 to 65535, got {args.port}")
    if args.bundles is not None:
        if not args.bundles.is_dir():
            parser.error(f"--bundles: {args.bundles} is not a folder; name the folder that export wrote")
        if (args.bundles / "current").is_file():
            parser.error(f"--bundles: {args.bundles} is the folder of one model; name the folder that holds it")
        os.environ["EKIBEN_BUNDLES"] = str(args.bundles)
    try:
        claim = claim_port(args.host, args.port)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        parser.exit(2, f"{parser.prog}: error: --host {args.host} --port {args.port}: {reason}\n")
    from service.engine.process.zygote import shared_zygote  # noqa: PLC0415 - not needed for --help, as the next ones

    with suppress(OSError):  # the workers try again
        shared_zygote().start()  # it imports while this process does
    from service.engine.sessions.device import check_device  # noqa: PLC0415
    from service.errors import DeviceError  # noqa: PLC0415
    from service.grpc.port import grpc_problem  # noqa: PLC0415
    from service.server.first_proofs import start_proofs  # noqa: PLC0415
    from service.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        settings = load_settings()
        settings.check_address(args.host)
        if settings.grpc_port and (problem := grpc_problem(args.host, settings.grpc_port)):
            raise SettingsError(problem)
        check_device(settings.device)
    except (SettingsError, DeviceError) as error:
        sys.exit(" ".join(str(error).split()))
    # To stderr, also for the workers, which are forked. granian adds loggers of its own, to stdout.
    line = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=line, datefmt="%Y-%m-%dT%H:%M:%S%z", force=True)
    logging.getLogger("service").setLevel(logging.INFO)
    with claim:
        start_proofs(settings)
        from service.server.master import Master  # noqa: PLC0415 - it imports the application, for seconds

        Master(settings, address=args.host, port=args.port, workers=args.workers).run()


def _num_workers(text: str) -> int:
    try:
        return available_cores() if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or auto, got {text!r}") from None


def _end(*_: Any) -> None:
    """End at once: nothing was started that has to be closed."""
    os._exit(0)


if __name__ == "__main__":
    main()
