"""Publisher and subscriber over a real server: every reader arrives at the published bits."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Head, ManifestEntry, head_fields, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import DigestError, UnknownVersionError, WireError
from rl4sys_stream.model_store.publisher import Base, KeyframePolicy, Provenance, Publisher
from rl4sys_stream.model_store.retention import Limits, retain
from rl4sys_stream.model_store.route import plan_reads
from rl4sys_stream.model_store.subscriber import Model, ModelSubscriber
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.wire.grid import round_to_grid
from rl4sys_stream.wire.snapshot import Weights, encode_snapshot

pytestmark = pytest.mark.integration

SIZES = {"pi.0.weight": (16, 32), "pi.0.bias": (32,), "pi.1.weight": (32, 4), "pi.1.bias": (4,)}


@dataclass
class Walk:
    """A worker's publications without its training: random steps, each one the head at once."""

    broker: Broker
    keys: ClientKeys
    retain: int = 4
    step: float = 1e-3
    token: str = "1:a"
    protected: frozenset[tuple[int, str]] = frozenset()
    compact: bool = False
    strides: tuple[int, ...] = ()
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    weights: Weights | None = None
    base: Base | None = None
    publisher: Publisher | None = None
    published: dict[tuple[int, str], tuple[Weights, bytes]] = field(default_factory=dict)
    written: dict[tuple[int, str], ManifestEntry] = field(default_factory=dict)

    def publish(self, *, version: int | None = None, reshape: bool = False) -> Head:
        """The next version, or `version`."""
        old = read_head(self.broker, self.keys)
        version = version or (old.version + 1 if old else 1)
        sizes = {**SIZES, "extra": (version,)} if reshape else SIZES
        if self.weights is None or reshape:
            start = {n: self.rng.standard_normal(s).astype(np.float32) for n, s in sizes.items()}
            self.weights = Weights.from_tensors(start)
        else:
            flat = self.weights.flat
            moved = flat + self.step * self.rng.standard_normal(flat.shape).astype(np.float32)
            self.weights = Weights(self.weights.layout, moved)
        extras = BehaviorExtras(
            ObservationNormalization(
                self.rng.standard_normal(16).astype(np.float32), np.ones(16, np.float32), 10.0
            )
        )
        weights, exponents = self.rounded(self.weights)
        if self.publisher is None:
            policy = KeyframePolicy(self.retain, strides=self.strides)
            self.publisher = Publisher(self.broker, self.keys, policy)
        staged = self.publisher.stage(
            version=version,
            token=self.token,
            lineage="line",
            weights=weights,
            exponents=exponents,
            extras=extras,
            base=self.base,
            manifest=old.manifest if old else (),
            provenance=Provenance(),
            metrics={},
            wall_ms=0,
            ttl_s=600,
        )
        kept = retain(staged.manifest, Limits(self.retain), self.protected)
        for entry in kept.pruned:
            self.broker.unlink(self.keys.model(entry.version, entry.token))
        head = Head(version, self.token, "line", staged.key, "", kept.manifest)
        self.broker.hash_set(self.keys.head, head_fields(head))
        self.base = Base(version, self.token, weights, exponents)
        self.publisher.follow(self.base)
        self.published[version, self.token] = (weights, extras.to_bytes())
        self.written[version, self.token] = staged.manifest[-1]
        return head

    def rounded(self, weights: Weights) -> tuple[Weights, tuple[int, ...] | None]:
        """As a worker publishes them; the grid changes all the time."""
        if not self.compact:
            return weights, None
        exponents = self.rng.integers(-14, -9, len(weights.layout.names)).tolist()
        model = round_to_grid(weights, exponents)
        return model.weights, model.exponents

    def check(self, model: Model | None) -> Model:
        """It is what was published under its name, bit for bit."""
        assert model is not None
        weights, extras = self.published[model.version, model.token]
        assert model.weights.flat.tobytes() == weights.flat.tobytes()
        assert model.weights.layout == weights.layout
        assert model.extras.to_bytes() == extras
        assert model.lineage == "line"
        return model

    def corrupt(self, version: int, name: str, data: bytes | None = None) -> None:
        """Flip a byte in the middle of a field of a version, or put `data` in its place."""
        key = self.keys.model(version, self.token)
        (old,) = self.broker.hash_get(key, name)
        assert old is not None
        middle = len(old) * 2 // 3
        flipped = old[:middle] + bytes([old[middle] ^ 0x10]) + old[middle + 1 :]
        self.broker.hash_set(key, {name: flipped if data is None else data})


@pytest.fixture(params=["exact", "compact"])
def walk(request, broker, client_name):
    """Nothing published yet."""
    return Walk(broker, ClientKeys(client_name), compact=request.param == "compact")


@pytest.fixture
def subscriber(walk):
    """A reader of it."""
    return ModelSubscriber(walk.broker, walk.keys)


def test_before_the_first_version_there_is_none(subscriber):
    """Neither an error nor a model."""
    assert subscriber.refresh(None) is None


def test_fifty_versions_reach_every_reader_bit_for_bit(walk, subscriber):
    """A fresh one, one that follows, and others that look every few versions, some pruned."""
    follower: Model | None = None
    sleepers: dict[int, Model | None] = {2: None, 3: None, 7: None, 13: None}
    for version in range(1, 51):
        head = walk.publish()
        follower = walk.check(subscriber.refresh(follower))
        assert (follower.version, follower.token) == (version, head.token)
        assert subscriber.refresh(follower) is None
        walk.check(subscriber.refresh(None))
        for pause, held in sleepers.items():
            if version % pause == 0:
                sleepers[pause] = walk.check(subscriber.refresh(held))
    head = walk.publish()
    for entry in head.manifest:
        walk.check(subscriber.read(entry.version))


def test_a_joiner_reads_less_than_two_keyframes(walk):
    """However the versions fall; and nobody finds a manifest without a keyframe at its start."""
    for _ in range(60):
        head = walk.publish()
        assert head.manifest[0].full_bytes
        newest = max(i for i, entry in enumerate(head.manifest) if entry.full_bytes)
        keyframe = head.manifest[newest].full_bytes
        diffs = sum(entry.diff_bytes for entry in head.manifest[newest + 1 :])
        assert keyframe + diffs < 2 * keyframe
        assert len(head.manifest) >= min(head.version, walk.retain)


@pytest.mark.parametrize("retain", [2, 5])
def test_diffs_of_nothing_do_not_keep_every_version(walk, retain):
    """A learning rate of 0 makes diffs so small that the bytes alone never ask for a keyframe.

    Each retained version has a checkpoint beside it, and those are not small.
    """
    walk.step, walk.retain = 0.0, retain
    for _ in range(40):
        head = walk.publish()
        assert len(head.manifest) <= 2 * retain


def test_a_version_of_another_layout_is_read_whole(walk, subscriber):
    """And the ones after it again by their diffs."""
    model: Model | None = None
    for version in range(1, 10):
        walk.publish(reshape=version in {4, 5})
        model = walk.check(subscriber.refresh(model))
        walk.check(subscriber.refresh(None))


def test_the_same_number_under_another_token_is_another_model(walk, subscriber):
    """The broker lost its last writes, and the number was issued again."""
    for _ in range(6):
        walk.publish()
    held = walk.check(subscriber.refresh(None))
    head = read_head(walk.broker, walk.keys)
    assert head is not None
    before = walk.published[4, "1:a"][0]
    walk.broker.hash_set(
        walk.keys.head, head_fields(replace(head, version=4, manifest=head.manifest[:-2]))
    )
    walk.token, walk.weights, walk.base = "2:b", before, Base(4, "1:a", before)
    for version in (5, 6, 7):
        walk.publish()
        newest = walk.check(subscriber.refresh(held))
        assert (newest.version, newest.token) == (version, "2:b")


def test_a_lower_number_under_another_token_is_taken(walk, subscriber):
    """Also when not even the manifest knows the one before."""
    for _ in range(5):
        walk.publish()
    held = walk.check(subscriber.refresh(None))
    walk.broker.unlink(walk.keys.head)
    walk.token, walk.weights, walk.base = "2:b", None, None
    walk.publish()
    newest = walk.check(subscriber.refresh(held))
    assert (newest.version, newest.token) == (1, "2:b")


def test_a_corrupted_diff_is_replaced_by_the_keyframe(walk, subscriber):
    """Wherever in the chain; the reader counts it, and has what it wanted."""
    while True:
        head = walk.publish()
        if len(head.manifest) > 3 and head.manifest[-1].full_bytes:
            break
        held = walk.check(subscriber.refresh(None))
    walk.corrupt(head.version, "diff")
    assert subscriber.frames_refused == 0
    walk.check(subscriber.refresh(held))
    assert subscriber.frames_refused == 1


def test_what_only_the_last_version_of_a_chain_needs_is_read_of_that_alone(walk, subscriber):
    """Normalisation is part of the extras: of a long chain they would be more than its diffs."""
    for _ in range(4):
        walk.publish()
    held = walk.check(subscriber.refresh(None))
    head = walk.publish()
    walk.publish()
    chain = [walk.keys.model(entry.version, entry.token) for entry in head.manifest]
    for key in chain:
        walk.broker.call("HDEL", key, "extras", "digest")
    walk.check(subscriber.refresh(None))
    walk.check(subscriber.refresh(held))
    assert subscriber.frames_refused == 0


@pytest.mark.parametrize("damage", ["flip", "empty", "random", "of another version", "gone"])
def test_wrong_weights_are_never_taken(walk, subscriber, damage):
    """Whatever happened to the bytes, the answer is an error, and the reader keeps what it has."""
    walk.retain = 2
    for _ in range(7):
        head = walk.publish()
    held = walk.check(subscriber.refresh(None))
    head = walk.publish()
    for entry in head.manifest:
        for name, size in (("full", entry.full_bytes), ("diff", entry.diff_bytes)):
            if not size:
                continue
            key = walk.keys.model(entry.version, entry.token)
            if damage == "gone":
                walk.broker.call("HDEL", key, name)
            else:
                stranger = encode_snapshot(walk.published[1, "1:a"][0])
                walk.corrupt(
                    entry.version,
                    name,
                    {
                        "flip": None,
                        "empty": b"",
                        "random": np.random.default_rng(1).bytes(size),
                        "of another version": stranger,
                    }[damage],
                )
    for have in (None, held):
        with pytest.raises(WireError):
            subscriber.refresh(have)


def test_every_flipped_byte_of_a_version_is_noticed(walk, subscriber):
    """In the snapshot, the extras and the digest itself."""
    walk.publish()
    key = walk.keys.model(1, "1:a")
    fields = walk.broker.hash_all(key)
    rng = np.random.default_rng(3)
    noticed = 0
    for name in (b"full", b"extras", b"digest"):
        data = fields[name]
        for place in rng.integers(0, len(data), 40):
            bit = 1 << int(rng.integers(0, 8))
            flipped = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            walk.broker.hash_set(key, {name.decode(): flipped})
            try:
                # A bit that zstd does not use: then the weights are the published ones.
                walk.check(subscriber.refresh(None))
            except WireError:
                noticed += 1
        walk.broker.hash_set(key, {name.decode(): data})
    assert noticed > 110
    walk.check(subscriber.refresh(None))


def test_extras_of_another_version_are_noticed(walk, subscriber):
    """The digest covers how to act, not the weights alone."""
    walk.publish()
    walk.publish()
    extras = walk.published[1, "1:a"][1]
    walk.corrupt(2, "extras", extras)
    with pytest.raises(DigestError, match="version 2"):
        subscriber.refresh(None)


def test_an_old_version_is_read_until_it_is_pruned(walk, subscriber):
    """Then the error says what there is."""
    for _ in range(19):
        walk.publish()
    head = walk.publish()
    first = head.manifest[0].version
    walk.check(subscriber.read(first))
    with pytest.raises(UnknownVersionError, match=f"retained versions: {first}…20"):
        subscriber.read(first - 1)


def test_a_protected_version_stays_readable_however_many_follow(walk, subscriber):
    """With the way to it, and nothing else; and from it a reader finds the newest again."""
    for _ in range(3):
        walk.publish()
    walk.protected = frozenset({(2, "1:a")})
    held = walk.check(subscriber.hold(2, "1:a", None))
    head = walk.publish()
    for _ in range(39):
        head = walk.publish()
        assert len(head.manifest) <= 2 + 3 * walk.retain
        assert subscriber.hold(2, "1:a", held) is None
        walk.check(subscriber.read(2))
        assert walk.check(subscriber.refresh(held)).after_loss is False
        walk.check(subscriber.hold(2, "1:a", walk.check(subscriber.refresh(None))))
    assert [entry.version for entry in head.manifest[:2]] == [1, 2]
    assert head.manifest[2].version > 20
    with pytest.raises(UnknownVersionError, match=r"no version 9; retained versions: 1…2, \d+…43"):
        subscriber.read(9)
    with pytest.raises(UnknownVersionError, match="that of 1:a, not of 9:z"):
        subscriber.hold(2, "9:z", held)
    walk.protected = frozenset()
    assert walk.publish().manifest[0].version > 20


def test_a_head_that_does_not_decode_is_an_error(walk, subscriber):
    """Not an absent one."""
    walk.publish()
    for name, data in (
        ("manifest", b"[[1]]"),
        ("manifest", b"[]"),
        ("version", b"x"),
        ("counts", b"[]"),
    ):
        (old,) = walk.broker.hash_get(walk.keys.head, name)
        walk.broker.hash_set(walk.keys.head, {name: data})
        with pytest.raises(WireError):
            subscriber.refresh(None)
        walk.broker.hash_set(walk.keys.head, {name: old or b""})


def test_a_reader_that_is_behind_takes_direct_diffs(broker, client_name):
    """Of a version 17 versions ago, fewer bytes than the chain, and the same weights."""
    walk = Walk(broker, ClientKeys(client_name), retain=64, compact=True, strides=(4, 16))
    subscriber = ModelSubscriber(walk.broker, walk.keys)
    for _ in range(16):
        walk.publish()
    held = walk.check(subscriber.refresh(None))
    for _ in range(16):
        walk.publish()
    head = walk.publish()
    reads = plan_reads(head.manifest, len(head.manifest) - 1, (held.version, held.token))
    assert [(read.entry.version, read.field) for read in reads] == [(32, "diff:16"), (33, "diff")]
    walk.check(subscriber.refresh(held))


def test_a_publisher_that_changes_its_codec_is_followed_bit_for_bit(broker, client_name):
    """Onto a grid by a keyframe, off it by a diff."""
    walk = Walk(broker, ClientKeys(client_name), retain=64)
    subscriber = ModelSubscriber(walk.broker, walk.keys)
    follower: Model | None = None
    entries = []
    for compact in (False, False, True, True, False, False):
        walk.compact = compact
        entries.append(walk.publish().manifest[-1])
        follower = walk.check(subscriber.refresh(follower))
    assert [bool(entry.diff_bytes) for entry in entries] == [False, True, False, True, True, True]
    assert entries[2].full_bytes


def test_readers_of_one_process_share_the_weights(walk):
    """As long as anybody holds them."""
    walk.publish()
    first, second = (ModelSubscriber(walk.broker, walk.keys).refresh(None) for _ in range(2))
    walk.check(first)
    walk.check(second)
    assert first is not None
    assert second is not None
    assert first.weights is second.weights
