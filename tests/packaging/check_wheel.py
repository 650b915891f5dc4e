"""Builds the wheel and checks it, installed without extras, far from this checkout.

Only this proves that the package data is shipped, that an application needs neither torch nor
Gymnasium, and that a missing extra is named. Run by `make wheel`; needs `build`, `hatchling` and
pip in the running interpreter. Exits with 1 and says what is wrong.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EX_CONFIG = 78
NOBODY_LISTENS = "redis://127.0.0.1:1/0"

IMPORT = """
import sys
import rl4sys_stream
import rl4sys_stream.agent, rl4sys_stream.dispatcher, rl4sys_stream.cli.main
from rl4sys_stream import RL4SysAgent, StreamAgent
assert StreamAgent is RL4SysAgent
assert "site-packages" in rl4sys_stream.__file__, rl4sys_stream.__file__
heavy = {"torch", "gymnasium", "matplotlib"} & set(sys.modules)
assert not heavy, f"importing the agent loads {heavy}"
for name in ("workers", "clients", "examples", "tests"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"the wheel installs a package {name!r}")
"""


def main() -> None:
    """Build, look inside, install, run."""
    with tempfile.TemporaryDirectory(prefix="rl4sys-wheel-") as folder:
        scratch = Path(folder)
        wheel = build(scratch)
        check_contents(wheel)
        programs = install(wheel, scratch)
        check_imports(programs, scratch)
        check_commands(programs, scratch)
    print(f"{wheel.name}: contents, light import and missing-extra message are right")


def build(scratch: Path) -> Path:
    """The wheel of this checkout, in `scratch`."""
    done = run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", f"{scratch}/dist"],
        cwd=ROOT,
    )
    expect(done.returncode == 0, "the wheel does not build", done)
    (wheel,) = scratch.glob("dist/*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Every file of the package is in the wheel, and nothing else but metadata."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rl4sys_stream").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if shipped != wanted:
        fail(f"the wheel lacks {sorted(wanted - shipped)}, has besides {sorted(shipped - wanted)}")
    for needed in ("rl4sys_stream/py.typed", "rl4sys_stream/broker/lua/commit.lua"):
        if needed not in shipped:
            fail(f"the wheel lacks {needed}")


def install(wheel: Path, scratch: Path) -> Path:
    """The programs of a new environment that holds the wheel and its base dependencies."""
    environment = scratch / "venv"
    venv.create(environment, with_pip=False)
    programs = environment / "bin"
    done = run(
        [
            *(sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"),
            *("--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)),
        ],
        cwd=scratch,
    )
    expect(done.returncode == 0, "the wheel does not install", done)
    return programs


def check_imports(programs: Path, scratch: Path) -> None:
    """The public names import, from site-packages, without the training stack."""
    done = run([str(programs / "python"), "-c", IMPORT], cwd=scratch)
    expect(done.returncode == 0, "the import check failed", done)


def check_commands(programs: Path, scratch: Path) -> None:
    """The console script runs, and `worker` without torch names the extra that brings it."""
    script = str(programs / "rl4sys-stream")
    done = run([script, "--help"], cwd=scratch)
    expect(done.returncode == 0 and "worker" in done.stdout, "--help does not help", done)
    done = run([script, "worker", "--client", "x", "--redis-url", NOBODY_LISTENS], cwd=scratch)
    named = "rl4sys-stream[worker]" in done.stderr
    expect(done.returncode == EX_CONFIG and named, "`worker` does not name its extra", done)


def run(command: list[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` without this checkout on the path."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False
    )


def expect(condition: bool, message: str, done: subprocess.CompletedProcess[str]) -> None:
    """Fail with `message` and what the command said, unless `condition` holds."""
    if not condition:
        fail(f"{message} (exit code {done.returncode})\n{done.stdout}\n{done.stderr}")


def fail(message: str) -> None:
    """Say what is wrong and end."""
    sys.exit(f"check_wheel: {message}")


if __name__ == "__main__":
    main()
