"""``python -m benchmarks``: measure, and make the pages of what was measured; ``covlib bench`` calls it."""

import argparse
import sys
from pathlib import Path

from covbook.manners import Parser, guarded


def command(argv: list[str] | None = None) -> int:
    """Run the command line with ``argv`` (default: the process's own); returns the exit status."""
    return guarded(lambda: _do(_parser().parse_args(argv)))


def _do(given) -> int:
    from benchmarks import measure
    from benchmarks.report import page, results

    if given.what or not (given.results or given.page):
        measure.main(given.what, Path(given.json) if given.json else None, keep=given.keep)
    if given.results:
        print(results.write_page(Path(given.results)))
    if given.page:
        print("\n".join(map(str, page.write())) or "book/_generated is up to date")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="covlib bench", description="Measure how fast things are (warm-up, median, spread).")
    parser.add_argument("what", nargs="*", help="what to measure: phantom, import, cli, data, ...; all when left out")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--keep", action="store_true", help="also as benchmarks/results/GROUP.json, for --results")
    parser.add_argument("--results", nargs="?", const="benchmarks/RESULTS.md", metavar="FILE", help="write the page of "
                        "all kept results (default benchmarks/RESULTS.md); without WHAT nothing is measured")
    parser.add_argument("--page", action="store_true", help="write what the book's page on speed shows of the kept "
                        "results to book/_generated; without WHAT nothing is measured")
    return parser


if __name__ == "__main__":
    sys.exit(command())
