"""The fixed part of a client's definition: what the registry compares, and agents act by."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import msgspec
import orjson

from rl4sys_stream.config.algorithms import check_actions, check_algorithm, find_algorithm
from rl4sys_stream.config.schema import check_keys, different_paths, read_struct, shown
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import (
    Box,
    Discrete,
    Space,
    flat_dim,
    space_from_json,
    space_to_json,
    without_bounds,
)
from rl4sys_stream.spaces.actions import ActionFormat

__all__ = [
    "Activation",
    "ClientSpec",
    "NetworkSpec",
    "action_format",
    "check_items",
    "check_network",
]

Width = Annotated[int, msgspec.Meta(ge=1, le=65_536)]

Activation = Literal["tanh", "relu", "leaky_relu", "elu", "silu", "gelu", "sigmoid"]


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Multilayer perceptrons: one for the actor and one for the critic.

    Attributes:
        hidden_sizes: Widths of the actor's hidden layers, first to last; [] makes it linear.
        activation: Of the hidden layers, in both networks. "leaky_relu" has slope 0.01 below 0,
            "elu" the limit -1, "gelu" is the approximation by tanh.
        critic_hidden_sizes: Widths of the critic's own hidden layers; None: as the actor's that it
            does not share.
        shared_layers: How many of the actor's hidden layers, from the first, are the critic's too;
            its own follow them.
        squash_output: Whether real-valued actions go through tanh onto their bounds; else they are
            clipped to them. Some algorithms always squash.
        per_item: Whether the actor is one network for each row of a two-dimensional observation,
            which gives the logit of the action of the same number; the critic then takes in what
            the rows have in common, whatever their order and number.
    """

    hidden_sizes: tuple[Width, ...] = (64, 64)
    activation: Activation = "tanh"
    critic_hidden_sizes: tuple[Width, ...] | None = None
    shared_layers: Annotated[int, msgspec.Meta(ge=0)] = 0
    squash_output: bool = False
    per_item: bool = False

    def __post_init__(self) -> None:
        """Refuse to share layers that do not exist, or that see one item alone.

        Raises:
            ConfigError: With the inequality in words.
        """
        layers = len(self.hidden_sizes)
        if self.shared_layers > layers:
            raise ConfigError(
                f"the critic cannot share {self.shared_layers} hidden layers of an actor that has "
                f"{layers}: shared_layers must be <= the length of hidden_sizes, which is {layers}",
                path="shared_layers",
            )
        if self.per_item and self.shared_layers:
            raise ConfigError(
                "with per_item the actor's layers see one item each, and the critic needs all of "
                f"them: shared_layers must be 0, not {self.shared_layers}",
                path="shared_layers",
            )

    @property
    def critic_own_sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers that only the critic has, first to last."""
        if self.critic_hidden_sizes is None:
            return self.hidden_sizes[self.shared_layers :]
        return self.critic_hidden_sizes

    def to_json(self) -> dict[str, object]:
        """The network as JSON-ready data, every field present but those that change nothing."""
        critic = self.critic_hidden_sizes
        data: dict[str, object] = {
            "hidden_sizes": list(self.hidden_sizes),
            "activation": self.activation,
            "critic_hidden_sizes": None if critic is None else list(critic),
        }
        if self.shared_layers:
            # Left out otherwise: readers that do not know the key can share a client as long as
            # it does not matter, and what they registered stays equal.
            data["shared_layers"] = self.shared_layers
        if self.squash_output:
            data["squash_output"] = True
        if self.per_item:
            data["per_item"] = True
        return data


def check_network(algorithm: str, network: NetworkSpec) -> None:
    """Refuse a network that `algorithm` cannot have.

    Raises:
        ConfigError: If it is to share layers between actor and critic, and cannot, or shapes a
            critic that does not exist.
    """
    definition = find_algorithm(algorithm)
    if network.critic_hidden_sizes is not None and not definition.has_critic:
        raise ConfigError(
            f"{algorithm} has no critic, so nothing would have these layers: leave "
            "critic_hidden_sizes out",
            path="network_architecture.critic_hidden_sizes",
        )
    if network.shared_layers and not definition.shares_layers:
        raise ConfigError(
            f"{algorithm} has no critic that could share layers with the actor: shared_layers must "
            f"be 0, not {network.shared_layers}",
            path="network_architecture.shared_layers",
        )


def check_items(
    algorithm: str, observation_space: Space, action_space: Space, network: NetworkSpec
) -> None:
    """Refuse to choose among items where the spaces or the algorithm have none.

    Raises:
        ConfigError: If the network is per item, and the algorithm cannot train such a one, or
            actions are not the rows of the observation.
    """
    if not network.per_item:
        return
    path = "network_architecture.per_item"
    if not find_algorithm(algorithm).scores_items:
        raise ConfigError(
            f"{algorithm} cannot train a network that sees one item at a time; leave per_item out, "
            "or take PPO",
            path=path,
        )
    rows = observation_space.shape[:-1] if isinstance(observation_space, Box) else ()
    if not isinstance(action_space, Discrete) or rows != (action_space.n,):
        raise ConfigError(
            "an action is one of the observation's rows: per_item needs Discrete(n) actions and "
            f"observations Box((n, features)), with the same n; not {action_space} and "
            f"{observation_space}",
            path=path,
        )


def action_format(algorithm: str, action_space: Space, network: NetworkSpec) -> ActionFormat:
    """What the actions of such a client are.

    Raises:
        ConfigError: If they are to be squashed and are no real numbers, or have no bounds.
    """
    if network.squash_output and not isinstance(action_space, Box):
        raise ConfigError(
            f"only real-valued actions go through tanh: squash_output must be false where actions "
            f"are {type(action_space).__name__}",
            path="network_architecture.squash_output",
        )
    always = find_algorithm(algorithm).squashes
    unbounded = isinstance(action_space, Box) and None in (action_space.low, action_space.high)
    if always and unbounded:
        raise ConfigError(
            f"{algorithm}'s actions always go through tanh onto their bounds: give low and high, "
            f"finite ones, or take another algorithm; not {action_space}",
            path="action_space",
        )
    squash = always or network.squash_output
    return ActionFormat.of(action_space, squash=squash)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSpec:
    """What all agents and workers of a client agree on; fixed by the first registration.

    Attributes:
        algorithm: Name of the algorithm.
        observation_space: What the application observes.
        action_space: What it can do.
        network: Shape of the networks.
    """

    algorithm: str = "PPO"
    observation_space: Space
    action_space: Space
    network: NetworkSpec = field(default_factory=NetworkSpec)

    def __post_init__(self) -> None:
        """Refuse an algorithm that does not exist or does not fit the spaces and the network.

        Raises:
            ConfigError: With what is available.
        """
        check_algorithm(self.algorithm)
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(self, name), Space):
                raise ConfigError(
                    f"expected a space of rl4sys_stream.spaces, not "
                    f"{shown(getattr(self, name))}; as_space() converts Gymnasium's",
                    path=name,
                )
        check_actions(self.algorithm, self.action_space)
        check_network(self.algorithm, self.network)
        check_items(self.algorithm, self.observation_space, self.action_space, self.network)
        self.actions  # noqa: B018 -- it says what is wrong with them

    @property
    def actions(self) -> ActionFormat:
        """What an action of the client is.

        Raises:
            ConfigError: If they are to be squashed and are no real numbers, or have no bounds.
        """
        return action_format(self.algorithm, self.action_space, self.network)

    @property
    def input_dim(self) -> int:
        """Width of the actor's input: of a flattened observation, or of one item per item."""
        space = self.observation_space
        if self.network.per_item and isinstance(space, Box):
            return space.shape[-1]
        return flat_dim(space)

    def to_json(self) -> dict[str, object]:
        """The spec as JSON-ready data, every field present; `from_json` reads it back equal."""
        return {
            "algorithm": self.algorithm,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "network_architecture": self.network.to_json(),
        }

    def to_bytes(self) -> bytes:
        """`to_json` as canonical bytes: equal specs give equal bytes (sorted keys, no spaces)."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: object, *, path: str = "") -> "ClientSpec":
        """The spec that `data` describes.

        Args:
            data: What `to_json` gave.
            path: Dotted path of `data`, for messages.

        Raises:
            ConfigError: If a key is unknown or missing, or a value mistyped.
        """
        keys = ("algorithm", "observation_space", "action_space", "network_architecture")
        prefix = f"{path}." if path else ""
        if not isinstance(data, Mapping):
            raise ConfigError(f"expected a spec with the keys {', '.join(keys)}", path=path)
        check_keys(data, keys, path=path)
        if missing := [key for key in keys if key not in data]:
            raise ConfigError("missing", path=prefix + missing[0])
        network = data["network_architecture"]
        if not isinstance(network, Mapping):
            raise ConfigError("expected an object", path=f"{prefix}network_architecture")
        return cls(
            algorithm=check_algorithm(data["algorithm"], path=f"{prefix}algorithm"),
            observation_space=space_from_json(
                data["observation_space"], path=f"{prefix}observation_space"
            ),
            action_space=space_from_json(data["action_space"], path=f"{prefix}action_space"),
            network=read_struct(NetworkSpec, network, path=f"{prefix}network_architecture"),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "ClientSpec":
        """The spec in `to_bytes`' form.

        Raises:
            ConfigError: If it is not JSON, or not a spec.
        """
        try:
            return cls.from_json(orjson.loads(data))
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"the client's spec is not JSON: {error}") from None

    def differences(self, other: "ClientSpec") -> tuple[str, ...]:
        """Dotted paths, sorted, at which `other` differs: "network_architecture.activation".

        Bounds of observations do not count: nothing acts or learns by them, and an environment
        states many that nobody writes into a file.
        """
        return different_paths(_compared(self), _compared(other))


def _compared(spec: ClientSpec) -> dict[str, object]:
    """What counts when specs are compared, as JSON-ready data."""
    return replace(spec, observation_space=without_bounds(spec.observation_space)).to_json()
