"""Make the packaged table of nouns: `python -m curate.wordnet [--source DIR] [--out FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from curate.errors import CurateError
from curate.wordnet.makers import DEBIAN, digest_of, read_nouns, write_table
from curate.wordnet.tables import table_path


def main() -> int:
    """Read WordNet 3.0 through NLTK, write the table, and print its digest."""
    parser = argparse.ArgumentParser(prog="python -m curate.wordnet", description=__doc__)
    parser.add_argument(
        "--source", type=Path, default=DEBIAN, help="folder with data.noun (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=table_path(), help="Parquet file (default: the packaged one)"
    )
    args = parser.parse_args()
    try:
        nouns = read_nouns(args.source)
    except CurateError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_table(nouns, args.out)
    print(f"{args.out}: {len(nouns):,} noun synsets, digest {digest_of(nouns)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
