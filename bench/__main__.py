"""`python -m bench GROUP [--json]`, from a checkout."""

import argparse
import json
import sys

from bench import GROUPS, run
from eyesmith.cli.failures import explain
from eyesmith.errors import EyesmithError


def main() -> int:
    """Measure one group and print its rows. Returns 1 when the outputs of a row differ or it cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="our speed beside our peers'")
    parser.add_argument("group", choices=sorted(GROUPS))
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON list")
    arguments = parser.parse_args()
    try:
        rows = run(arguments.group)
    except EyesmithError as error:
        return explain(error)
    if arguments.json:
        print(json.dumps([row.to_json() for row in rows], indent=2))
    for row in () if arguments.json else rows:
        print(
            f"{row.row}: {row.ratio:.2f}x ({row.low:.2f} to {row.high:.2f}), ours {row.ours:.4g}, "
            f"theirs {row.theirs:.4g} {row.unit}; outputs {'equal' if row.equal else 'DIFFER'}; peer {row.peer}"
        )
        if row.note:
            print(f"  {row.note}")
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
