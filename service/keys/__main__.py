"""Make a key for a client.

    python -m service.keys new NAME --scopes infer,models --rate 100 --burst 200 --concurrency 8 --expires 2027-01-01

Prints the line for the file of keys to stdout and the key itself, which is stored nowhere, to stderr.
"""

import argparse
import sys

from service.keys.key_file import SCOPES, digest_key, new_key, parse_line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m service.keys", description="Make keys for clients.")
    new = parser.add_subparsers(required=True, metavar="new").add_parser("new", help="make a key")
    new.add_argument("name", help="of the client, for logs")
    new.add_argument("--scopes", default="infer,models", help=f"of {', '.join(SCOPES)}; default: infer,models")
    new.add_argument("--rate", help="requests per second")
    new.add_argument("--burst", help="requests at once; default: those of one second")
    new.add_argument("--concurrency", help="inference requests at the same time")
    new.add_argument("--expires", help="date or time from which the key is refused")
    args = parser.parse_args()
    key = new_key()
    fields = {name: getattr(args, name) for name in ("scopes", "rate", "burst", "concurrency", "expires")}
    given = [f"{field}={value}" for field, value in fields.items() if value is not None]
    line = " ".join([args.name, f"sha256={digest_key(key).hex()}", *given])
    try:
        if line.split() != [args.name, f"sha256={digest_key(key).hex()}", *given]:
            raise ValueError("expected values without blanks")
        parse_line(line)
    except ValueError as error:
        new.error(str(error))
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    sys.stderr.write(f"{key}\n")


if __name__ == "__main__":
    main()
