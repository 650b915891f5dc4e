"""The second trajectory codec: the same trajectories, and a named refusal for everything else."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import google.protobuf
import pytest
from hypothesis import HealthCheck, given, settings

from rl4sys_stream.config.extras import OLDEST_PROTOBUF, require_protobuf
from rl4sys_stream.errors import MissingExtraError, WireError, WireFormatError, WireLimitError
from rl4sys_stream.wire import protobuf
from rl4sys_stream.wire import rl4sys_stream_pb2 as pb
from rl4sys_stream.wire.format import WireLimits
from rl4sys_stream.wire.trajectory import (
    End,
    decode_trajectory,
    encode_trajectory,
    read_steps,
)
from tests.unit.wire.strategies import assert_same_trajectory, trajectories
from tests.unit.worker.entries import SPEC, trajectory

ROOT = Path(__file__).resolve().parents[3]
PLAIN = trajectory(4)


def message(**changes: Any) -> pb.Trajectory:
    """That of a plain trajectory, with fields of its header changed."""
    ((name, data),) = encode_trajectory(PLAIN, "protobuf")
    assert name == b"pb"
    found = pb.Trajectory.FromString(data)
    for field, value in changes.items():
        setattr(found.header, field, value)
    return found


def decode(found: pb.Trajectory | bytes) -> object:
    """As a worker would."""
    data = found if isinstance(found, bytes) else found.SerializeToString()
    return decode_trajectory({b"pb": data}, SPEC)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trajectories())
def test_both_codecs_carry_the_same_trajectory(case):
    """Bit for bit, whatever is in it; and either way it can be sent on by the other one."""
    sent, spec = case
    by_columns = decode_trajectory(dict(encode_trajectory(sent)), spec)
    by_message = decode_trajectory(dict(encode_trajectory(sent, "protobuf")), spec)
    assert_same_trajectory(by_columns, by_message)
    assert_same_trajectory(sent, by_message)
    again = decode_trajectory(dict(encode_trajectory(by_message)), spec)
    assert_same_trajectory(sent, again)


def test_steps_are_read_without_the_columns():
    """By whoever counts them only."""
    for codec in ("columns", "protobuf"):
        fields = dict(encode_trajectory(PLAIN, codec))
        assert read_steps(fields, WireLimits()) == 4


def test_the_json_header_decides_where_there_are_both():
    """A field that a reader does not know is passed over, and older readers know `pb` not."""
    fields = dict(encode_trajectory(PLAIN)) | {b"pb": b"anything"}
    assert_same_trajectory(decode_trajectory(fields, SPEC), PLAIN)


def test_unknown_fields_are_passed_over():
    """So that the next version's agents can be read."""
    data = encode_trajectory(PLAIN, "protobuf")[0][1]
    later = b"\x82\x06\x03abc" + b"\x88\x06\x05" + b"\x8d\x06abcd" + b"\x89\x06abcdefgh"
    assert_same_trajectory(decode_trajectory({b"pb": data + later}, SPEC), PLAIN)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 0}, "trajectory format 0"),
        ({"format": 2}, "trajectory format 2"),
        ({"steps": 3}, "behavior covers|bytes"),
        ({"steps": 0}, "does not fit"),
        ({"end": 0}, "the end 0 is unknown"),
        ({"end": 9}, "the end 9 is unknown"),
        ({"end": pb.END_CUT}, "no final observation"),
        ({"episode": 1 << 53}, "does not fit"),
        ({"created_ms": (1 << 64) - 1}, "does not fit"),
    ],
)
def test_a_header_that_breaks_a_promise_is_refused(changes, said):
    """As the JSON header is."""
    with pytest.raises(WireFormatError, match=said):
        decode(message(**changes))


def test_behavior_is_checked_like_the_other_codecs():
    """Tokens, and steps that add up."""
    for version, token, steps in ((0, "3:a", 4), (3, "", 4), (3, "a b", 4), (3, "a", 5)):
        found = message()
        del found.header.behavior[:]
        found.header.behavior.add(version=version, token=token, steps=steps)
        with pytest.raises(WireFormatError):
            decode(found)


def test_columns_of_another_length_or_kind_are_refused():
    """Their shapes are the client's."""
    found = message()
    found.observations = found.observations[:-1]
    with pytest.raises(WireFormatError, match="'obs' has 47 bytes"):
        decode(found)
    found = message()
    found.vectors = found.choices
    with pytest.raises(WireFormatError, match="'action' is declared as <f4"):
        decode(found)
    found = message()
    found.ClearField("choices")
    with pytest.raises(WireFormatError, match="'action' is not declared"):
        decode(found)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\x05ab",
        b"\xff" * 11,
        b"\x0b\x0c",  # a group
        b"\x07",  # a wire type that does not exist
        b"\x09abc",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x02\x1a\x7f",  # cut within the header
        b"RL4W" * 9,
    ],
)
def test_no_message_at_all_is_refused_by_name(data):
    """Never an error of the library."""
    with pytest.raises(WireFormatError):
        decode(data)


def test_a_message_that_would_grow_in_memory_is_not_parsed():
    """Two bytes each, a hundred in memory: half a million empty runs."""
    runs = b"\x1a\x00" * (1 << 19)
    size = len(runs)
    varint = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127])
    with pytest.raises(WireLimitError, match="beside its columns"):
        decode(b"\x0a" + varint + runs)
    with pytest.raises(WireLimitError, match="more than 256 fields"):
        decode(b"\x0a\x00" * 300)
    within = message()
    for _ in range(5):
        within.header.behavior.add()
    with pytest.raises(WireFormatError, match="runs of behavior"):
        decode(within)


def test_limits_hold_before_anything_is_parsed():
    """By the entry's size, and by the steps that it declares."""
    fields = dict(encode_trajectory(PLAIN, "protobuf"))
    small = replace(SPEC, limits=WireLimits(max_entry_bytes=50))
    with pytest.raises(WireLimitError, match="50 are allowed"):
        decode_trajectory(fields, small)
    with pytest.raises(WireLimitError, match="1000000 steps"):
        decode(message(steps=1_000_000))


def test_every_end_has_its_name():
    """A new one needs a new number."""
    assert {name.removeprefix("END_") for name in pb.End.keys()} == {  # noqa: SIM118 - no mapping
        "UNSPECIFIED",
        *(end.name for end in End),
    }


def test_the_generated_code_is_that_of_the_schema(tmp_path):
    """`make proto` makes it."""
    out = (f"--python_out={tmp_path}", f"--pyi_out={tmp_path}")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "clients/proto", *out]
    subprocess.run([*command, "rl4sys_stream.proto"], cwd=ROOT, check=True)
    for path in sorted(tmp_path.iterdir()):
        committed = ROOT / "rl4sys_stream" / "wire" / path.name
        assert path.read_text() == committed.read_text(), f"{path.name}: run make proto"


def test_a_missing_or_old_library_is_named_with_the_next_move(monkeypatch):
    """At load, where the agent's application begins."""
    require_protobuf("it")
    monkeypatch.setattr(google.protobuf, "__version__", "6.33.0")
    with pytest.raises(MissingExtraError, match=r"which it needs.*rl4sys-stream\[protobuf\]"):
        require_protobuf("it")
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    protobuf._module.cache_clear()
    with pytest.raises(MissingExtraError, match=r"rl4sys-stream\[protobuf\]"):
        encode_trajectory(PLAIN, "protobuf")


def test_the_oldest_library_is_the_one_that_pyproject_names():
    """Said twice, so held together."""
    oldest = ".".join(map(str, OLDEST_PROTOBUF))
    assert f'protobuf = ["protobuf>={oldest}"]' in (ROOT / "pyproject.toml").read_text()


def test_whoever_sends_columns_does_not_load_the_library():
    """It is an extra."""
    code = (
        "import sys\n"
        "import tests.unit.worker.entries as e\n"
        "from rl4sys_stream.wire.trajectory import decode_trajectory, encode_trajectory\n"
        "decode_trajectory(dict(encode_trajectory(e.trajectory())), e.SPEC)\n"
        "sys.exit('google.protobuf' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_damage_is_a_wire_error_whatever_it_hits():
    """Each byte in turn, set to several values."""
    data = encode_trajectory(PLAIN, "protobuf")[0][1]
    for at in range(len(data)):
        for value in (0, 1, 127, 128, 255):
            try:
                decode(data[:at] + bytes([value]) + data[at + 1 :])
            except WireError:
                continue
