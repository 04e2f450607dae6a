"""`ekiben COMMAND`: one command for all stages.

Each command is the `main` of its stage, imported when it is called, so that help needs none of the stages' packages.
"""

import sys
from collections.abc import Sequence

from ekiben.cli.commands import COMMANDS, CommandError, run_command
from ekiben.cli.overview import OVERVIEW, versions
from ekiben.cli.suggestions import did_you_mean

COMPLETION = "completion"
# The exit status of a command that SIGINT ended, as shells report it.
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: that of the command; 1 a package is missing, 2 wrong usage, 130 interrupted."""
    name, *words = (sys.argv[1:] if argv is None else argv) or [""]
    if name in {"-h", "--help", "--version"}:
        print(versions() if name == "--version" else OVERVIEW)
        return 0
    if name in COMMANDS or name == COMPLETION:
        return _run(name, words)
    known = (*COMMANDS, COMPLETION)
    hint = did_you_mean(name, known) or f"; commands are {', '.join(known)}"
    print(f"ekiben: error: unknown command {name!r}{hint}" if name else OVERVIEW, file=sys.stderr)
    return 2


def _run(name: str, words: Sequence[str]) -> int:
    try:
        if name == COMPLETION:
            from ekiben.cli.completion import main as complete  # noqa: PLC0415 - imports every stage

            return complete(words)
        return run_command(name, words)
    except CommandError as error:
        print(f"ekiben {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
