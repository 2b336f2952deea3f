"""Writes the tables of the pages below from the results: `python -m benchmarks.performance_page`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. A test holds the pages to the results' files.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.load_tables import LOAD_TABLES
from benchmarks.performance_tables import TABLES
from benchmarks.records import RESULTS

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md", ROOT / "docs" / "load.md")
ALL_TABLES = TABLES | LOAD_TABLES
TABLE = re.compile(r"(<!-- table: ([\w+-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Writes the pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance_page", description=__doc__.splitlines()[0])
    parser.parse_args()
    for page in PAGES:
        page.write_text(updated(page.read_text(), RESULTS))
        print(f"written to {page}")


def updated(page: str, results: Path, tables: Mapping[str, Callable[[Path], str]] = ALL_TABLES) -> str:
    """The page with its tables as the results say. Raises KeyError for a table that is not known."""
    return TABLE.sub(lambda found: found[1] + tables[found[2]](results) + found[3], page)


if __name__ == "__main__":
    main()
