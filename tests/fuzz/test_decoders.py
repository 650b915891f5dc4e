"""Whatever the bytes are: a value or a named error, soon, and within the declared memory."""

import random
import subprocess
import sys
import time
import tracemalloc
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.campaign import regressions
from tests.fuzz.containers import pack, unpack
from tests.fuzz.mutations import damaged, zstd_bombs
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

fuzz = partial(settings, deadline=None, suppress_health_check=list(HealthCheck))
MAX_CPU_S = 1.0
"""Of the processor, so that a busy machine fails nothing; honest inputs take a millisecond."""

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


def within_the_contract(target: Target, data: bytes) -> None:
    """Decode `data`, watching the time and the memory that it takes."""
    tracemalloc.start()
    began = time.process_time()
    try:
        target(data)
        taken_s = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken_s < MAX_CPU_S
    assert peak <= target.allowed_bytes(data)


@every_target
def test_what_our_own_encoders_wrote_and_what_once_broke_a_decoder(target):
    """The seeds, prepared attacks among them, and the inputs that a campaign has found."""
    for data in (*target.seeds, *(path.read_bytes() for path in regressions(target.name))):
        within_the_contract(target, data)


@every_target
def test_what_our_own_encoders_wrote_is_not_refused(target):
    """A decoder that refuses everything would pass every other test here."""
    for data in target.seeds[: target.honest]:
        target.decode(data)


@pytest.mark.timeout(120)
@every_target
@fuzz(max_examples=60)
@given(rng=st.randoms(use_true_random=False), data=st.data())
def test_damaged_inputs(target, rng, data):
    """Bits, lengths, fields and JSON of valid inputs, made hostile."""
    seed = data.draw(st.sampled_from(target.seeds))
    other = data.draw(st.sampled_from(target.seeds))
    within_the_contract(target, damaged(seed, rng, fields=target.fields, other=other))


@every_target
def test_noise(target):
    """Nothing of any format is left."""
    rng = random.Random(7)
    for size in (0, 1, 7, 8, 9, 64, 1000):
        within_the_contract(target, rng.randbytes(size))
        within_the_contract(target, bytes(size))
        within_the_contract(target, b"\xff" * size)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_no_bomb_goes_off_in_a_process_without_memory_for_it():
    """What native libraries allocate is seen by the system alone."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.bounded"], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert int(done.stdout) > len(TARGETS)


def test_the_bombs_are_bombs():
    """A bomb that is none would prove nothing: the first two really hold 64 MiB."""
    import zstandard  # noqa: PLC0415 -- the product's own reader is what the other tests use

    for bomb in zstd_bombs(1000)[:2]:
        whole = zstandard.ZstdDecompressor().decompressobj().decompress(bomb)
        assert len(whole) == 64 << 20
        assert len(bomb) < 10_000


@fuzz(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_container(data):
    """So no input of a fuzzer is wasted, and a container means the same however it was written."""
    fields = unpack(data)
    assert unpack(pack(fields)) == fields


@pytest.mark.parametrize("wrong", [KeyError("x"), RecursionError(), MemoryError(), OSError()])
def test_a_target_lets_no_other_error_pass(wrong):
    """The net itself: what is not named is not swallowed."""

    def decode(data: bytes) -> None:
        raise wrong

    target = next(iter(TARGETS.values()))
    with pytest.raises(type(wrong)):
        Target("broken", decode, target.named, (b"",))(b"")
