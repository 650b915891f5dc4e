"""Makes the conformance vectors: `python -m clients.conformance.generate`.

Deterministic: the same vectors whenever and wherever it runs with the versions in constraints.txt.
The vectors are frozen (tests/conformance holds their digest), so what this writes is what is there;
where a change of bytes is meant, it goes into the next version's folder.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from clients.conformance.messages import add_control, add_notices
from clients.conformance.policies import add_flattening, add_policies
from clients.conformance.trajectories import add_trajectories
from clients.conformance.vectors import Collection
from clients.conformance.weights import add_diffs, add_snapshots

__all__ = ["main"]

FOLDER: Final = Path(__file__).resolve().parent / "v1"


def main() -> int:
    """0; with `--check`, 1 if the folder holds anything else than this would write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they lie")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    arguments = parser.parse_args()
    collection = Collection()
    for add in (
        add_trajectories,
        add_snapshots,
        add_diffs,
        add_notices,
        add_control,
        add_policies,
        add_flattening,
    ):
        add(collection)
    if not arguments.check:
        collection.write(arguments.folder)
        print(f"{len(collection.files)} files in {arguments.folder}")
        return 0
    found = {
        path.relative_to(arguments.folder).as_posix(): path.read_bytes()
        for path in arguments.folder.rglob("*")
        if path.is_file()
    }
    names = collection.files.keys() | found.keys()
    different = sorted(n for n in names if found.get(n) != collection.files.get(n))
    for name in different:
        print(f"{name} is not what the generator makes", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
