"""What the campaigns have found, each with a name; all of it once broke its decoder."""

import json
import struct
import time

import pytest

from rl4sys_stream.broker.connection import BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import record_definition
from rl4sys_stream.config import check_redis_url, load_config
from rl4sys_stream.errors import (
    MAX_MESSAGE_CHARS,
    ConfigError,
    DigestError,
    WireError,
    WireFormatError,
)
from rl4sys_stream.spaces import Box
from rl4sys_stream.worker.checkpoint import read_checkpoint
from rl4sys_stream.worker.statistics import RolloutStatistics
from tests.fuzz.containers import pack, unpack
from tests.fuzz.spool_targets import _books, _later, _segment
from tests.fuzz.targets import TARGETS

DEEP = b"[" * 100_000 + b"]" * 100_000
JSON_TARGETS = (
    "ledger",
    "heartbeat",
    "worker_report",
    "dispatcher_report",
    "metrics",
    "registration",
    "client_spec",
    "statistics",
    "server_note",
    "spool_records",
    "head",
    "extras",
)


def with_unknown_key(text: bytes, value: bytes) -> bytes:
    """The JSON object `text` with one key more, which readers skip."""
    return text.rstrip()[:-1] + b',"unknown":' + value + b"}"


@pytest.mark.parametrize("name", JSON_TARGETS)
def test_brackets_without_end_in_a_key_that_nobody_reads(name):
    """A reader recurses through what it skips; that ended workers and dispatchers."""
    target = TARGETS[name]
    for seed in target.seeds:
        if not target.fields:
            target(with_unknown_key(seed, DEEP))
            continue
        fields = unpack(seed)
        for place, (field, value) in enumerate(fields):
            if value[:1] in {b"{", b"["}:
                hostile = with_unknown_key(value, DEEP) if value[:1] == b"{" else DEEP
                target(pack((*fields[:place], (field, hostile), *fields[place + 1 :])))


def configuration(tmp_path, text: bytes):
    """The configuration that a file with `text` holds."""
    path = tmp_path / "client.json"
    path.write_bytes(text)
    return load_config(path, environ={})


@pytest.mark.parametrize(
    "text",
    [
        b'{"agent": {"seed": ' + b"7" * 5_000 + b"}}",
        b'{"agent": {"seed": ' + DEEP + b"}}",
        b'{"agent": {"seed": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"agent": {"spool_dir": "\\ud800"}}',
        b'{"\\ud800": 1}',
        b'{"agent": {"' + b"k" * 100_000 + b'": 1}}',
        b'{"observation_space": {"type": "box", "shape": [1], "low": 1' + b"0" * 400 + b"}}",
        b'{"observation_space": {"type": "box", "shape": [' + b"1," * 99 + b"1]}}",
    ],
    ids=["digits", "brackets", "nearly", "half pair", "half key", "long", "bound", "axes"],
)
def test_configuration_files_that_are_refused_in_words(tmp_path, text):
    """A person reads the message on a terminal: it has words that can be shown, and an end."""
    with pytest.raises(ConfigError) as refused:
        configuration(tmp_path, text)
    message = str(refused.value)
    message.encode()
    assert len(message) <= MAX_MESSAGE_CHARS + 300


def test_a_file_of_many_keys_is_read_in_no_time(tmp_path):
    """Looking for the one that stands twice took quadratic time."""
    keys = b",".join(b'"k%d":0' % number for number in range(80_000))
    began = time.process_time()
    with pytest.raises(ConfigError, match="twice"):
        configuration(tmp_path, b"{" + keys + b',"k79999":1}')
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["[" * 100_000, '"\udcff"', "\udcff", "7" * 5_000])
def test_environment_variables_that_are_refused_in_words(text):
    """The operating system passes on any bytes."""
    with pytest.raises(ConfigError):
        load_config(None, environ={"RL4SYS_STREAM__AGENT__DROP_POLICY": text})


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost?db=1&port=seven",
        "redis://localhost?ssl_cert_reqs=none",
        "rediss://localhost?ssl_cert_reqs=perhaps",
        "redis://local\x00host",
        "redis://\udcff:6379",
        "redis://" + "a" * 10_000,
    ],
)
def test_broker_urls_that_no_connection_can_be_made_of(url):
    """They were found out when the first connection was made, by an error of redis-py's."""
    with pytest.raises(ConfigError):
        BrokerAddress.from_url(url, {})


@pytest.mark.parametrize("read", [check_redis_url, lambda url, **_: BrokerAddress.from_url(url)])
def test_long_urls_are_refused_before_a_password_is_looked_for(read):
    """The search takes quadratic time: a megabyte would have taken hours."""
    began = time.process_time()
    with pytest.raises(ConfigError):
        read("a://a:" * 150_000, allow_password=True)
    assert time.process_time() - began < 1


def test_messages_end_and_can_be_shown():
    """They go into the quarantine, of which a broker keeps a thousand."""
    error = WireFormatError("x" * 1_000_000 + "\ud800")
    assert len(str(error)) == MAX_MESSAGE_CHARS
    assert str(WireFormatError("\ud800")) == "\\ud800"
    assert ConfigError("no", path="\udcff").path == "\\udcff"


def test_a_bound_beyond_every_float_is_refused():
    """Python's integers have no limit; floats do."""
    with pytest.raises(ConfigError):
        Box((3,), low=10**400)


# -- the spool -----------------------------------------------------------------------------------


def state_of(**changes: object) -> bytes:
    """A STATE record's payload with other values."""
    return json.dumps({**json.loads(_later()[0][1]), **changes}).encode()


@pytest.mark.parametrize(
    "files",
    [
        {b"00000001.seg": b"fifo"},
        {b"00000001.seg": b"folder"},
        {b"1x.seg": pack(_books())},
        {b"\xff\xfe.seg": pack(_books())},
        {b"00000001.seg": b"sparse" + struct.pack("<Q", 1 << 39)},
    ],
    ids=["a pipe", "a folder", "a name", "no text", "a hole of 512 GiB"],
)
def test_files_in_a_spool_that_nobody_there_wrote(files):
    """An agent that adopted such a folder waited for ever, or asked for all of the memory."""
    TARGETS["spool_folder"](pack(files.items()))


@pytest.mark.parametrize(
    "changes",
    [
        {"queued": [[1, (1 << 53) - 2]], "offered": [], "next_ordinal": (1 << 53) - 1},
        {"offered": [[1, 1, 1 << 40]], "issued": 1 << 41, "next_ordinal": 1 << 41, "queued": []},
        {"queued": [[7, 2], [3, 1]]},
        {"sealing": -1},
        {"agent_id": "two words"},
        {"issued": 1 << 60},
    ],
    ids=["long queue", "long offer", "backwards", "negative", "name", "beyond"],
)
def test_states_that_claim_more_than_there_is(changes):
    """The runs in them were written out number by number."""
    records = ((b"\x01", state_of(**changes)), *_later()[1:])
    TARGETS["spool_folder"](pack(((b"00000001.seg", pack(records)),)))
    dropped = (*records[:1], (b"\x06", struct.pack("<Q", 1 << 52)))
    TARGETS["spool_folder"](pack(((b"00000001.seg", pack(dropped)),)))


@pytest.mark.parametrize("kind", range(2, 10))
def test_records_that_contradict_the_books_change_nothing(kind):
    """Their checksums are right; the counts that they led to were below zero."""
    for payload in (
        struct.pack("<Q", 1 << 50),
        struct.pack("<QH", 99, 0),
        struct.pack("<QQ", 0, 9),
    ):
        records = (*_books(), (bytes([kind]), payload))
        TARGETS["spool_folder"](pack(((b"00000001.seg", pack(records)),)))


def test_a_segment_is_scanned_without_reading_it_whole():
    """A file's size is a claim; what was written ends before it."""
    segment = _segment(_books())
    asked = []

    def read(at: int, length: int) -> bytes:
        asked.append(length)
        return segment[at : at + length]

    from rl4sys_stream.agent.spool.records import scan  # noqa: PLC0415 -- beside its one use

    assert len(list(scan(read, 1 << 40))) == len(_books())
    assert max(asked) < len(segment)


# -- what the broker holds -------------------------------------------------------------------------


def sealed_checkpoint(**changes: object) -> bytes:
    """A checkpoint whose header says something else, under a digest that is right."""
    fields = dict(unpack(TARGETS["checkpoint_sealed"].seeds[0]))
    header = {**json.loads(fields[b"header"]), **changes}
    return pack(((b"header", json.dumps(header).encode()), (b"payload", fields[b"payload"])))


def test_a_checkpoint_of_nothing_in_impossible_axes():
    """No element, so its size is right; numpy refuses the shape by an error of its own."""
    header = json.loads(dict(unpack(TARGETS["checkpoint_sealed"].seeds[0]))[b"header"])
    nothing = {"name": "nothing", "dtype": "<f4", "shape": [1 << 40, 1 << 40, 0]}
    data = sealed_checkpoint(arrays=[*header["arrays"], nothing])
    TARGETS["checkpoint_sealed"](data)
    with pytest.raises(WireFormatError, match="impossible shape"):
        TARGETS["checkpoint_sealed"].decode(data)


def test_a_counter_beyond_every_float():
    """Whether it is finite cannot be asked of it."""
    data = sealed_checkpoint(numbers={"num_timesteps": 10**400, "rate": 0.1})
    with pytest.raises(WireFormatError):
        TARGETS["checkpoint_sealed"].decode(data)


def test_statistics_of_absurd_lengths():
    """Their mean would be no float."""
    text = b'{"episodes": 1, "returns": [1.0], "lengths": [1%s], "open": {}}' % (b"0" * 400)
    with pytest.raises(WireFormatError):
        RolloutStatistics.from_bytes(text)


def test_a_checkpoint_that_claims_a_size_without_end(broker, client_name):
    """It was asked for chunk by chunk, 10^23 of them."""
    key = ClientKeys(client_name).checkpoint(1, "1:ab")
    statistics = RolloutStatistics().to_bytes()
    broker.hash_set(key, {"size": b"9" * 30, "digest": b"00", "statistics": statistics})
    with pytest.raises(DigestError):
        read_checkpoint(broker, key)
    broker.hash_set(key, {"size": b"many"})
    with pytest.raises(WireError):
        read_checkpoint(broker, key)


def test_a_definition_that_nobody_can_read_is_replaced(broker, client_name):
    """A worker that compares it with its own went down."""
    keys = ClientKeys(client_name)
    broker.hash_set(keys.spec, {"definition": b"{"})
    assert record_definition(broker, keys, {"worker": {}}, wall_ms=1)
    assert broker.hash_get(keys.spec, "definition")[0] == b'{"worker":{}}'
    assert not record_definition(broker, keys, {"worker": {}}, wall_ms=2)
