"""Upstream RL4Sys's own configuration files, read field by field.

Each field that upstream knows is mapped to a setting of ours or declared not applicable, with the
reason; an unknown one is an error. docs/configuration.md has the same table for people.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from rl4sys_stream.config.address import url_from_server_address
from rl4sys_stream.config.algorithms import check_algorithm
from rl4sys_stream.config.client import check_client_id, steps_that_fit
from rl4sys_stream.config.hyperparameters import PPOParameters
from rl4sys_stream.config.layers import Layer, expect_object
from rl4sys_stream.config.schema import check_keys, dotted, shown
from rl4sys_stream.config.settings import WorkerSettings
from rl4sys_stream.config.upstream_dqn import NOT_APPLICABLE as DQN_NOT_APPLICABLE
from rl4sys_stream.config.upstream_dqn import RENAMED as DQN_RENAMED
from rl4sys_stream.config.upstream_dqn import read_dqn_parameters
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Box, Discrete, flat_dim
from rl4sys_stream.spaces.actions import ActionFormat

__all__ = ["MARKS", "read_upstream"]

PARAMETERS: Final = "algorithm_parameters"

NOT_APPLICABLE: Final = MappingProxyType(
    {
        "send_frequency": "each trajectory is sent by itself, as soon as its rewards are set",
        "act_limit": "it bounds continuous actions, and the actions here are Discrete",
        "request_timeout_seconds": (
            "nothing here waits for a learner's answer; calls to the broker are bounded by "
            "connection_timeout_seconds"
        ),
        "enable_compression": "trajectories travel as raw columns, models as compressed diffs",
        "debug": "the application configures logging; commands have --debug",
        "log_level": "the application configures logging; commands have --debug",
    }
)
PARAMETERS_NOT_APPLICABLE: Final = MappingProxyType(
    {
        "buf_size": "a rollout ends at n_steps, so no buffer has a size of its own",
        "batch_size": (
            "upstream passes over the whole rollout whatever it says, so n_steps takes its place"
        ),
    }
)
RENAMED: Final = MappingProxyType(
    {
        "clip_ratio": "clip_range",
        "gamma": "gamma",
        "lam": "gae_lambda",
        "pi_lr": "learning_rate",
        "vf_lr": "critic_learning_rate",
        "train_pi_iters": "n_epochs",
        "target_kl": "target_kl",
        "norm_adv": "normalize_advantage",
        "ent_coef": "ent_coef",
        "vf_coef": "vf_coef",
        "seed": "seed",
    }
)
UNCLIPPED_GRAD_NORM: Final = 1e9
"""What upstream's `max_grad_norm` 0, no clipping, becomes: a norm that no gradient reaches."""

MARKS: Final = (
    "algorithm_name",
    "type",
    "train_server_address",
    "max_traj_length",
    "connection_timeout_seconds",
    *NOT_APPLICABLE,
)
"""Top-level keys that only upstream's form has."""

_KEYS: Final = ("client_id", PARAMETERS, *MARKS)
_SPACES: Final = ("input_size", "act_dim")
_PARAMETER_KEYS: Final = MappingProxyType(
    {
        "PPO": (
            *RENAMED,
            *PARAMETERS_NOT_APPLICABLE,
            "traj_per_epoch",
            "train_v_iters",
            "clip_vloss",
            "max_grad_norm",
            *_SPACES,
        ),
        "DQN": (*DQN_RENAMED, *DQN_NOT_APPLICABLE, *_SPACES),
    }
)
"""Hyperparameters that upstream's algorithms have, with the spaces that it puts among them."""

TYPES: Final = MappingProxyType({"PPO": "onpolicy", "DQN": "offpolicy"})
"""What upstream calls them in `type`."""


def read_upstream(data: Mapping[str, object], layer: Layer) -> None:
    """Put what `data`, in upstream's form, says into `layer`.

    Raises:
        ConfigError: If a field is unknown or cannot be honoured.
    """
    check_keys(data, _KEYS)
    if "algorithm_name" in data:  # first: the other fields have a meaning only if it can be trained
        name = check_algorithm(data["algorithm_name"], path="algorithm_name")
        layer.put("algorithm", name, written="algorithm_name")
    parameters = expect_object(data.get(PARAMETERS, {}), path=PARAMETERS)
    _read_parameters(parameters, layer)
    for key, value in data.items():
        if key in NOT_APPLICABLE:
            layer.not_applicable(key, NOT_APPLICABLE[key])
        elif key in _READERS:
            _READERS[key](value, layer)


def _client_id(value: object, layer: Layer) -> None:
    layer.put("client_id", check_client_id(value), written="client_id")


def _algorithm(layer: Layer) -> str:
    """The algorithm of the file: PPO where it says none, or one that upstream does not have."""
    name = layer.values.get("algorithm")
    return name if isinstance(name, str) and name in TYPES else "PPO"


def _type(value: object, layer: Layer) -> None:
    algorithm = _algorithm(layer)
    expected = TYPES[algorithm]
    if value != expected:
        raise ConfigError(
            f'expected "{expected}", which is what {algorithm} is, not {shown(value)}', path="type"
        )
    layer.notices.append(f'type: "{expected}" follows from the algorithm')


def _server_address(value: object, layer: Layer) -> None:
    key = "train_server_address"
    url = url_from_server_address(value, path=key)
    layer.put("communication.redis_url", url, written=key)


def _timeout(value: object, layer: Layer) -> None:
    layer.put("communication.timeout", value, written="connection_timeout_seconds")


def _max_traj_length(value: object, layer: Layer) -> None:
    """Upstream never enforced it; here it is where episodes are cut, as far as entries allow."""
    key, target = "max_traj_length", "agent.max_trajectory_steps"
    length = _count(value, key)
    limits = {"traj_per_epoch, the steps of one update": layer.values.get(f"{PARAMETERS}.n_steps")}
    observation, action = layer.values.get("observation_space"), layer.values.get("action_space")
    if isinstance(observation, Box) and isinstance(action, Discrete):
        limits["what one stream entry can carry"] = steps_that_fit(
            flat_dim(observation), ActionFormat.of(action), WorkerSettings().max_entry_bytes
        )
    steps = length
    for reason, limit in limits.items():
        if isinstance(limit, int) and not isinstance(limit, bool) and limit < steps:
            steps = limit
            layer.notices.append(
                f"{key}: {length} is more than {reason} ({limit}); longer episodes are cut there "
                "and go on in the next trajectory"
            )
    layer.put(target, steps, written=key)


_READERS: Final[Mapping[str, Callable[[object, Layer], None]]] = MappingProxyType(
    {
        "client_id": _client_id,
        "type": _type,
        "train_server_address": _server_address,
        "connection_timeout_seconds": _timeout,
        "max_traj_length": _max_traj_length,
    }
)


def _read_parameters(data: Mapping[str, object], layer: Layer) -> None:
    algorithm = _algorithm(layer)
    check_keys(data, _PARAMETER_KEYS[algorithm], path=PARAMETERS)
    if algorithm == "DQN":
        read_dqn_parameters(data, layer, section=PARAMETERS)
    else:
        _read_ppo_parameters(data, layer)
    _read_spaces(data, layer)


def _read_ppo_parameters(data: Mapping[str, object], layer: Layer) -> None:
    for key, value in data.items():
        written = dotted(PARAMETERS, key)
        if key in PARAMETERS_NOT_APPLICABLE:
            layer.not_applicable(written, PARAMETERS_NOT_APPLICABLE[key])
        elif key in RENAMED:
            layer.put(dotted(PARAMETERS, RENAMED[key]), value, written=written)
    _read_rollout(data, layer)
    _read_clipping(data, layer)


def _read_spaces(data: Mapping[str, object], layer: Layer) -> None:
    if "input_size" in data:
        key = dotted(PARAMETERS, "input_size")
        space = Box((_count(data["input_size"], key),))
        layer.put("observation_space", space, written=key)
    if "act_dim" in data:
        key = dotted(PARAMETERS, "act_dim")
        layer.put("action_space", Discrete(_count(data["act_dim"], key)), written=key)


def _read_rollout(data: Mapping[str, object], layer: Layer) -> None:
    """Upstream counts steps in `traj_per_epoch`, and passes over all of them in each iteration."""
    written = dotted(PARAMETERS, "traj_per_epoch")
    steps = _count(data.get("traj_per_epoch", PPOParameters().n_steps), written)
    layer.put(f"{PARAMETERS}.n_steps", steps, written=written)
    layer.put(f"{PARAMETERS}.batch_size", steps, written=written)
    if "train_v_iters" in data:
        written = dotted(PARAMETERS, "train_v_iters")
        iterations = _count(data["train_v_iters"], written)
        if "train_pi_iters" not in data:
            layer.put(f"{PARAMETERS}.n_epochs", iterations, written=written)
        elif iterations == data["train_pi_iters"]:
            layer.notices.append(f"{written} is read as {PARAMETERS}.n_epochs, as train_pi_iters")
        else:
            raise ConfigError(
                f"actor and critic are trained in the same passes, so train_v_iters must equal "
                f"train_pi_iters, which is {shown(data['train_pi_iters'])}; not {iterations}",
                path=written,
            )


def _read_clipping(data: Mapping[str, object], layer: Layer) -> None:
    if "clip_vloss" in data:
        written = dotted(PARAMETERS, "clip_vloss")
        clip = data["clip_vloss"]
        if not isinstance(clip, bool):
            raise ConfigError(f"expected true or false, not {shown(clip)}", path=written)
        limit = data.get("clip_ratio", 0.2) if clip else None
        layer.put(f"{PARAMETERS}.clip_range_vf", limit, written=written)
    if "max_grad_norm" in data:
        written = dotted(PARAMETERS, "max_grad_norm")
        norm = data["max_grad_norm"]
        if norm == 0 and not isinstance(norm, bool):
            norm = UNCLIPPED_GRAD_NORM
            layer.notices.append(f"{written}: 0 is read as {norm:g}: gradients are not clipped")
        layer.put(f"{PARAMETERS}.max_grad_norm", norm, written=written)


def _count(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"expected an integer >= 1, not {shown(value)}", path=path)
    return value
