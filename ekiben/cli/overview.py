"""What `ekiben --help` and `ekiben --version` print."""

from ekiben.cli.commands import COMMANDS

EXAMPLES = """\
  ekiben train mnist-cnn                      # writes runs/mnist-cnn
  ekiben export runs/mnist-cnn                # writes bundles/mnist-cnn/VERSION
  ekiben inspect mnist-cnn                    # what it answers, and how that was proven
  ekiben serve --port 3000                    # answers requests with every bundle
  ekiben score --model mnist-cnn --input digits.parquet --output scored
  ekiben completion bash > ~/.local/share/bash-completion/completions/ekiben"""
COMMAND_LIST = "\n".join(f"  {name:11} {command.summary}" for name, command in COMMANDS.items())
OVERVIEW = f"""\
usage: ekiben COMMAND [OPTIONS]

Takes models from training to production: trains, exports with proof, serves and scores.

commands (each has --help):
{COMMAND_LIST}
  completion  print the completion of a shell: bash, zsh, fish or tcsh

options:
  --version   print version and revision
  --help      print this help

examples:
{EXAMPLES}

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted; `score` also has 3, rows rejected, 4, files changed,
and 143, terminated."""


def versions() -> str:
    """Name, version and, if known, the revision of the sources."""
    from service.container.build import own_revision, own_version  # noqa: PLC0415 - reads metadata, not needed for help

    revision = own_revision()
    return f"ekiben {own_version()}" + (f" (revision {revision[:12]})" if revision else "")
