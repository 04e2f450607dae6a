"""python -m service.scoring --model NAME[@VERSION]... --input PATH... --output DIR, or status DIR

Exit codes: 0, done, at most --max-rejects rejected; 3, done, more rejected; 4, done, but files have changed since they
were scored (--new-only); 1, failed: fix the cause, then run it again to resume; 2, invalid command line; 130,
interrupted, and 143, terminated: run it again to resume.
"""

import argparse
import os
import signal
import sys

ParserClass = type[argparse.ArgumentParser]
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
STDERR = 2


def main(arguments: list[str] | None = None, parser_class: ParserClass = argparse.ArgumentParser) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["status"]:
        from service.scoring.watch import status  # noqa: PLC0415 - as below

        return status.main(arguments[1:], parser_class)
    before = signal.signal(signal.SIGTERM, _end_unbegun)
    try:
        # Takes seconds, in which SIGTERM is answered.
        from service.scoring.command.command import run  # noqa: PLC0415

        return run(arguments, parser_class)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes the job", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def command_parser(parser_class: ParserClass = argparse.ArgumentParser) -> argparse.ArgumentParser:
    from service.scoring.command.parser import command_parser  # noqa: PLC0415 - as above

    return command_parser(parser_class)


def _end_unbegun(*_: object) -> None:
    """End at once: no file is open yet."""
    os.write(STDERR, b"terminated before the job began; the same command begins or resumes it\n")
    os._exit(EXIT_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
