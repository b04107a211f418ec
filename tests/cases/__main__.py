"""`python -m tests.cases`: the table of cases; `... FOLDER`: of a folder; `... public FOLDER`: of other projects."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from tests.cases import table


def main(arguments: list[str]) -> int:
    """Prints a table -> 1 where a case is not right."""
    if arguments[:1] == ["public"]:
        from tests.cases import public

        return public.main(Path(arguments[1]))
    if arguments:
        from tests.cases import given

        return given.main(Path(arguments[0]))
    counts: Counter[str] = Counter()
    print("| part | case | outcome |\n|---|---|---|")
    for one, outcome in table.outcomes():
        counts["right" if outcome == "right" else "not right"] += 1
        print(f"| {one.part} | {one.name} | {outcome} |", flush=True)
    print(dict(counts), file=sys.stderr)
    return 1 if counts["not right"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
