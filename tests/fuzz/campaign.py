"""A coverage-guided campaign: libFuzzer, through atheris, against every target.

    python -m tests.fuzz.campaign --seconds 60 [--target NAME]... [--keep]

Each target runs in a process of its own, with a limit on its memory and on the time of one input,
and `rl4sys_stream` instrumented. An exception ends nothing: it is told apart from others by its
type and place, its input is written down, and the search goes on. A hang or too much memory ends
the process, which is then started again for the time that is left. With --keep, inputs become
regression files under tests/fuzz/corpus/, which test_decoders.py replays.

Needs atheris (`make fuzz` installs it): Linux on x86-64, Python 3.11 to 3.13.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

CORPUS: Final = Path(__file__).parent / "corpus"
TIMEOUT_S: Final = 5
RSS_MB: Final = 600
"""What Python, numpy and the package take (about 130 MB), and far less than any bomb claims."""
MAX_INPUT_BYTES: Final = 1 << 16
_STATUS: Final = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+)")


@dataclass(slots=True)
class Outcome:
    """What a target's campaign came to.

    Attributes:
        name: Of the target.
        executions: Inputs decoded.
        edges: Edges of instrumented code that were reached.
        features: libFuzzer's finer measure: edges with their hit counts and comparisons.
        seconds: Wall clock.
        findings: One line each.
    """

    name: str
    executions: int = 0
    edges: int = 0
    features: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


# -- in the process of one target ---------------------------------------------------------------


class _Recorder:
    """Runs a target and writes down each new way in which it fails."""

    def __init__(self, target: Any, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._seen: set[str] = set()

    def __call__(self, data: bytes) -> None:
        try:
            self._target(data)
        except Exception as error:  # noqa: BLE001 -- whatever is not named is what we look for
            self._note(error, data)

    def _note(self, error: Exception, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "rl4sys_stream" in frame.filename] or frames
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        words = f"{type(error).__name__} at {place}"
        if words in self._seen:
            return
        self._seen.add(words)
        note = {"finding": f"{words}: {str(error)[:200]!a}", "input": data.hex()}
        name = hashlib.sha256(words.encode()).hexdigest()[:12]
        (self._folder / f"{name}.json").write_text(json.dumps(note), encoding="utf-8")


def _fuzz(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Search until the time is over; never returns, libFuzzer ends the process."""
    import atheris  # noqa: PLC0415 -- the parent and the tests do without it

    with atheris.instrument_imports(include=["rl4sys_stream"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 -- instrumented while imported
    from tests.fuzz.mutations import damaged  # noqa: PLC0415 -- after the instrumented imports

    logging.disable(logging.CRITICAL)
    target = TARGETS[name]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        """Half of the time what a hostile sender would do, half of the time libFuzzer's own."""
        rng = random.Random(seed)
        if rng.random() < 0.5:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        other = rng.choice(target.seeds)
        return damaged(data, rng, fields=target.fields, other=other)[:max_size]

    options = [
        f"-max_total_time={seconds}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={RSS_MB}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-seed={seed}",
        "-len_control=0",
        "-reload=0",
        f"-artifact_prefix={folder}/stop-",
    ]
    corpus = folder / "corpus"
    record = _Recorder(target, folder)
    atheris.Setup([sys.argv[0], *options, str(corpus)], record, custom_mutator=mutate)
    atheris.Fuzz()


# -- in the process that was asked ----------------------------------------------------------------


def run_target(name: str, seconds: float, folder: Path) -> Outcome:
    """The campaign of one target, in as many processes as it takes.

    Args:
        name: Of the target.
        seconds: For all of them together.
        folder: For the corpus and the findings.
    """
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 -- the child imports them instrumented

    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = [*TARGETS[name].seeds, *(path.read_bytes() for path in regressions(name))]
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    outcome = Outcome(name)
    began = time.monotonic()
    attempt = 0
    while (left := seconds - (time.monotonic() - began)) > 1:
        attempt += 1
        command = [sys.executable, "-m", "tests.fuzz.campaign"]
        command += ["--child", str(folder), "--target", name]
        command += ["--seconds", str(int(left)), "--seed", str(attempt)]
        done = subprocess.run(
            command,
            env={**os.environ, "TMPDIR": str(folder)},  # libFuzzer's exit cleans nothing up
            capture_output=True,
            check=False,
            timeout=left + 120,
            preexec_fn=_limit,
        )
        _count(outcome, done.stderr.decode("utf-8", "replace"))
        if done.returncode == 0:
            break
        if not list(folder.glob("stop-*")):
            raise SystemExit(f"{name} cannot be fuzzed:\n{done.stderr.decode()[-3000:]}")
    outcome.seconds = time.monotonic() - began
    for path in sorted(folder.glob("*.json")):
        outcome.findings.append(json.loads(path.read_text(encoding="utf-8"))["finding"])
    outcome.findings += [path.name for path in sorted(folder.glob("stop-*"))]
    return outcome


def _limit() -> None:
    # Behind libFuzzer's own limit, which is checked once a second only.
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def _count(outcome: Outcome, log: str) -> None:
    found = _STATUS.findall(log)
    if found:
        executions, edges, features = (int(number) for number in found[-1])
        outcome.executions += executions
        outcome.edges = max(outcome.edges, edges)
        outcome.features = max(outcome.features, features)


def regressions(name: str) -> list[Path]:
    """Inputs of `name` that once broke it."""
    return sorted((CORPUS / name).glob("*.bin"))


def keep(name: str, folder: Path) -> None:
    """Make regression files of what was found."""
    inputs = [
        bytes.fromhex(json.loads(path.read_text(encoding="utf-8"))["input"])
        for path in sorted(folder.glob("*.json"))
    ]
    inputs += [path.read_bytes() for path in sorted(folder.glob("stop-*"))]
    for data in inputs:
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        (CORPUS / name / f"{hashlib.sha256(data).hexdigest()[:12]}.bin").write_bytes(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--target", action="append", help="repeat for several; all by default")
    parser.add_argument("--keep", action="store_true", help="keep findings as regression files")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        _fuzz(options.target[0], options.child, int(options.seconds), options.seed)
        return 0
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 -- the child imports them instrumented

    outcomes = []
    for name in options.target or TARGETS:
        with tempfile.TemporaryDirectory(prefix="rl4sys-fuzz-") as folder:
            outcome = run_target(name, options.seconds, Path(folder))
            if options.keep:
                keep(name, Path(folder))
        outcomes.append(outcome)
        print(
            f"{name:20} {outcome.executions:9} executions, {outcome.edges:4} edges, "
            f"{outcome.features:5} features, {len(outcome.findings)} findings",
            flush=True,
        )
        for finding in outcome.findings:
            print(f"    {finding}", flush=True)
    if options.json:
        text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
