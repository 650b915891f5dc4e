"""Targets: configuration files in all three forms, the environment, and addresses of brokers."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from rl4sys_stream.broker.connection import BrokerAddress
from rl4sys_stream.config import check_redis_url, load_config
from rl4sys_stream.config.address import url_from_server_address
from rl4sys_stream.errors import ConfigError
from tests.fuzz.containers import pack, unpack
from tests.fuzz.target import Target

__all__ = ["CONFIG_TARGETS"]

NATIVE = {
    "client_id": "lunar_lander",
    "algorithm": "PPO",
    "observation_space": {"type": "box", "shape": [8], "low": -1.0, "high": 1.0},
    "action_space": {"type": "discrete", "n": 4},
    "network_architecture": {"hidden_sizes": [64, 64], "activation": "relu"},
    "algorithm_parameters": {
        "learning_rate": 0.001,
        "gamma": 0.99,
        "n_steps": 2048,
        "batch_size": 128,
        "target_kl": None,
        "normalize_advantage": True,
    },
    "agent": {"drop_policy": "block", "block_timeout_s": 1.5, "spool_dir": "spool", "seed": 3},
    "worker": {"lease_s": 10.0, "lease_renew_s": 3.0, "retain_versions": 16},
    "communication": {"redis_url": "redis://localhost:6379/0", "timeout": 5.0},
}
README = {
    "client_id": "sys-1",
    "algorithm": "PPO",
    "algorithm_parameters": {"learning_rate": 3e-4, "clip_ratio": 0.2, "lam": 0.97},
    "training": {"batch_size": 64, "epochs": 4},
    "network_architecture": {"hidden_sizes": [32], "activation": "tanh"},
    "communication": {"server_address": "127.0.0.1:6379", "timeout": 30},
}
UPSTREAM = {
    "client_id": "cartpole",
    "algorithm_name": "PPO",
    "type": "onpolicy",
    "train_server_address": "127.0.0.1:50051",
    "send_frequency": 10,
    "max_traj_length": 1000,
    "connection_timeout_seconds": 10,
    "algorithm_parameters": {
        "traj_per_epoch": 512,
        "clip_ratio": 0.2,
        "gamma": 0.99,
        "lam": 0.97,
        "pi_lr": 3e-4,
        "vf_lr": 1e-3,
        "train_pi_iters": 10,
        "train_v_iters": 10,
        "target_kl": 0.01,
        "clip_vloss": True,
        "max_grad_norm": 0,
        "input_size": 4,
        "act_dim": 2,
    },
}
ENVIRONMENT = (
    (b"RL4SYS_STREAM_CLIENT_ID", b"lunar"),
    (b"RL4SYS_STREAM_REDIS_URL", b"redis://user:secret@localhost:6379/1"),
    (b"RL4SYS_STREAM__AGENT__DROP_POLICY", b"drop_newest"),
    (b"RL4SYS_STREAM__TRAINING__N_STEPS", b"1024"),
    (b"RL4SYS_STREAM__NETWORK_ARCHITECTURE__HIDDEN_SIZES", b"[32, 32]"),
    (b"RL4SYS_STREAM__OBSERVATION_SPACE", b'{"type": "box", "shape": [4]}'),
)
URLS = (
    b"redis://localhost:6379/0",
    b"rediss://user:pass%40word@broker.example:6380/2?ssl_cert_reqs=none",
    b"unix:///run/valkey.sock?db=1",
    b"redis://[::1]:6379",
    b"redis://localhost?db=1&port=7&password=hidden",
    b"127.0.0.1:6379",
)


def _file() -> Callable[[bytes], None]:
    folder = tempfile.TemporaryDirectory(prefix="rl4sys-fuzz-")  # as long as `decode` lives
    path = Path(folder.name) / "client.json"

    def decode(data: bytes, _folder: object = folder) -> None:
        path.write_bytes(data)
        config = load_config(path, environ={})
        if config.observation_space is not None and config.action_space is not None:
            config.spec().to_bytes()

    return decode


def _decode_environment(data: bytes) -> None:
    # The operating system hands over what it has as text, undecodable bytes as surrogates.
    environ = {os.fsdecode(name): os.fsdecode(value) for name, value in unpack(data)}
    load_config(None, environ=environ)


def _fit(read: Callable[[], object]) -> None:
    """A refusal here does not end the input: other readers see it, too."""
    try:
        read()
    except ConfigError as error:
        str(error).encode()


def _decode_url(data: bytes) -> None:
    text = os.fsdecode(data)
    _fit(lambda: check_redis_url(text, allow_password=True))
    _fit(lambda: check_redis_url(text, allow_password=False))
    _fit(lambda: url_from_server_address(text))
    address = BrokerAddress.from_url(text, {"RL4SYS_STREAM_STATE_DIR": "/nonexistent"})
    # Made, not connected.
    address.connection(timeout_s=1.0, name="fuzz")
    address.client(timeout_s=1.0, name="fuzz").close()


def _dump(document: object) -> bytes:
    return json.dumps(document).encode()


def _file_target(name: str, *seeds: bytes) -> Target:
    # The reader asks for a whole megabyte, the limit of a file, and one byte more.
    return Target(name, _file(), ConfigError, seeds, fixed_bytes=2 << 20)


CONFIG_TARGETS = (
    _file_target("config_native", _dump(NATIVE), b"\xef\xbb\xbf" + _dump(NATIVE)),
    _file_target("config_readme", _dump(README)),
    _file_target("config_upstream", _dump(UPSTREAM)),
    Target(
        "config_environment", _decode_environment, ConfigError, (pack(ENVIRONMENT),), fields=True
    ),
    Target("broker_url", _decode_url, ConfigError, URLS, honest=len(URLS) - 1),
)
