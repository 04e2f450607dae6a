"""Measure how soon the playground of a running service is painted and usable, in a browser that has no cache of it.

    python -m benchmarks.http.first_view --url http://127.0.0.1:3000 [--runs 7]

It needs Debian's chromium. *Painted* is the first contentful paint; *usable* is when a model can be chosen.
"""

import argparse
import sys
from statistics import median

from tests.e2e.browser import running_browser, watched_page

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
SIZES = "performance.getEntriesByType('resource').map((each) => each.transferSize)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    painted_ms, usable_ms, sizes = [], [], []
    with running_browser() as browser:
        for _ in range(args.runs):
            with watched_page(browser, args.url) as watched:
                page = watched.open("draw")
                page.get_by_label("Model", exact=True).wait_for()
                usable_ms.append(page.evaluate("performance.now()"))
                painted_ms.append(page.evaluate(PAINTED))
                sizes = page.evaluate(SIZES)
    rows = [("painted", painted_ms), ("usable", usable_ms)]
    lines = [f"| {name}, ms | {min(each):.0f} | {median(each):.0f} | {max(each):.0f} |" for name, each in rows]
    sys.stdout.write("\n".join(["| | fastest | median | slowest |", "| --- | ---: | ---: | ---: |", *lines]) + "\n")
    sys.stdout.write(f"{len(sizes)} requests, {sum(sizes)} bytes after the page itself\n")


if __name__ == "__main__":
    main()
