"""Every prepared input against every target, in a process that has hardly any memory to spare.

tracemalloc sees what Python and numpy allocate; a limit on the address space also sees what zstd
and the other native libraries do. Run by test_decoders.py: `python -m tests.fuzz.bounded`.
"""

import logging
import resource
import sys
from pathlib import Path

from tests.fuzz.campaign import regressions
from tests.fuzz.targets import TARGETS

__all__ = ["SPARE_BYTES", "main"]

SPARE_BYTES = 40 << 20
"""Less than what the zstd bombs hold (64 MiB), more than any decoder here is allowed."""


def main() -> int:
    """0 if every input ended in a value or a named error; a MemoryError is neither."""
    logging.disable(logging.CRITICAL)
    inputs = [
        (target, data)
        for target in TARGETS.values()
        for data in (*target.seeds, *(path.read_bytes() for path in regressions(target.name)))
    ]
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for target, data in inputs:
        target(data)
    print(len(inputs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
