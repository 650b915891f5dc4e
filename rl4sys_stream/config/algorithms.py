"""Which algorithms there are, as plain data: no torch, so that agents can read any configuration.

The package brings its own; another package adds one by an entry point of the group
`rl4sys_stream.algorithms`, which has the algorithm's name and leads to an `AlgorithmDefinition`:

    [project.entry-points."rl4sys_stream.algorithms"]
    MyRule = "my_package.definition:MY_RULE"

The module that holds the definition is imported by agents, too, and must not import torch; the
factory is imported by the worker alone.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final

from rl4sys_stream.config.hyperparameters import (
    DQNParameters,
    Hyperparameters,
    PPOParameters,
    SACParameters,
)
from rl4sys_stream.config.schema import Location, nearest, read_struct, shown
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Space

__all__ = [
    "ALGORITHMS",
    "ENTRY_POINT_GROUP",
    "AlgorithmDefinition",
    "check_actions",
    "check_algorithm",
    "find_algorithm",
    "known_parameters",
    "read_parameters",
]

ENTRY_POINT_GROUP: Final = "rl4sys_stream.algorithms"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmDefinition:
    """One algorithm, as the configuration and the worker need to know it.

    Attributes:
        name: What `algorithm` says in a configuration.
        parameters: Its hyperparameters.
        factory: Where its class stands, "module:name"; called with (spec, parameters, seed=…), it
            gives an `rl4sys_stream.algorithms.base.Algorithm`. Imported by the worker only.
        actions: Names of the kinds of action space it can choose from ("Discrete", "Box", …).
        on_policy: Whether it trains on recent behaviour only: then `worker.max_policy_lag` holds.
        squashes: Whether continuous actions always go through tanh, whatever
            `network_architecture.squash_output` says.
        shares_layers: Whether its critic can share layers with the actor; else
            `network_architecture.shared_layers` must be 0.
        has_critic: Whether it has one at all; else `network_architecture.critic_hidden_sizes` must
            not be there.
        scores_items: Whether it can train `network_architecture.per_item`.
        takes_priors: Whether it trains on logits to which the application has added its own.
    """

    name: str
    parameters: type[Hyperparameters]
    factory: str
    actions: tuple[str, ...]
    on_policy: bool
    squashes: bool = False
    shares_layers: bool = False
    has_critic: bool = True
    scores_items: bool = False
    takes_priors: bool = False


PPO: Final = AlgorithmDefinition(
    name="PPO",
    parameters=PPOParameters,
    factory="rl4sys_stream.algorithms.ppo:PPO",
    actions=("Discrete", "MultiDiscrete", "MultiBinary", "Box"),
    on_policy=True,
    shares_layers=True,
    scores_items=True,
    takes_priors=True,
)

DQN: Final = AlgorithmDefinition(
    name="DQN",
    parameters=DQNParameters,
    factory="rl4sys_stream.algorithms.dqn:DQN",
    actions=("Discrete",),
    on_policy=False,
    has_critic=False,
)

SAC: Final = AlgorithmDefinition(
    name="SAC",
    parameters=SACParameters,
    factory="rl4sys_stream.algorithms.sac:SAC",
    actions=("Box",),
    on_policy=False,
    squashes=True,
)

_OWN: Final = {definition.name: definition for definition in (PPO, DQN, SAC)}

ALGORITHMS: Final = tuple(_OWN)
"""Names of the algorithms that this package brings."""

_ELSEWHERE: Final = {
    "PPO_Continuous": "it is PPO with a Box as its action_space",
}


def find_algorithm(name: str, *, path: str = "algorithm") -> AlgorithmDefinition:
    """The algorithm called `name`, the package's own or an installed one.

    Raises:
        ConfigError: If there is none, or its entry point does not lead to a definition.
    """
    if name in _OWN:
        return _OWN[name]
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return _load(name, point.value, point.load, path)
    available = f"available: {', '.join(_names())}"
    if name in _ELSEWHERE:
        raise ConfigError(f"unknown algorithm {name!r}: {_ELSEWHERE[name]}; {available}", path=path)
    guess = nearest(name, _names())
    hint = f"did you mean {guess!r}? " if guess else ""
    raise ConfigError(
        f"unknown algorithm {shown(name)}; {hint}{available}; another package's algorithm must be "
        "installed beside the agents as well as beside the worker",
        path=path,
    )


def _load(name: str, value: str, load: Callable[[], object], path: str) -> AlgorithmDefinition:
    try:
        found = load()
    except Exception as error:
        raise ConfigError(
            f"the algorithm {name!r} cannot be loaded from {value}: {error}", path=path
        ) from error
    if not isinstance(found, AlgorithmDefinition) or found.name != name:
        raise ConfigError(
            f"the entry point of algorithm {name!r} leads to {value}, which is no "
            "AlgorithmDefinition of that name",
            path=path,
        )
    _check_parameters(name, value, found.parameters, path)
    return found


def _check_parameters(name: str, value: str, kind: object, path: str) -> None:
    """Refuse hyperparameters that a worker cannot plan with, before one has started."""
    if not isinstance(kind, type) or not issubclass(kind, Hyperparameters):
        raise ConfigError(
            f"the algorithm {name!r} cannot be configured: parameters in {value} must be a "
            f"subclass of rl4sys_stream.config.Hyperparameters, not {shown(kind)}",
            path=path,
        )
    if kind.steps_per_update is Hyperparameters.steps_per_update:
        raise ConfigError(
            f"the algorithm {name!r} cannot be planned for: {kind.__name__} in {value} must define "
            "the property steps_per_update, how many environment steps one update takes",
            path=path,
        )


def _names() -> list[str]:
    return sorted({*_OWN, *entry_points(group=ENTRY_POINT_GROUP).names})


def check_algorithm(name: object, *, path: str = "algorithm") -> str:
    """`name`, if a worker can train it.

    Raises:
        ConfigError: If not; it says which can.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"expected the name of an algorithm, not {shown(name)}; available: "
            f"{', '.join(_names())}",
            path=path,
        )
    return find_algorithm(name, path=path).name


def check_actions(algorithm: str, action_space: Space) -> None:
    """Refuse actions that `algorithm` cannot choose.

    Raises:
        ConfigError: If their space is of another kind.
    """
    kinds = find_algorithm(algorithm).actions
    if type(action_space).__name__ not in kinds:
        raise ConfigError(
            f"{algorithm} needs {_one_of(kinds)} actions, not {action_space}", path="action_space"
        )


def _one_of(kinds: tuple[str, ...]) -> str:
    *others, last = kinds
    return f"{', '.join(others)} or {last}" if others else last


def known_parameters() -> tuple[str, ...]:
    """Names of the hyperparameters of all algorithms, each once."""
    names: dict[str, None] = {}
    for definition in _definitions():
        names.update(dict.fromkeys(definition.parameters.__struct_fields__))
    return tuple(names)


def read_parameters(
    algorithm: str, data: Mapping[str, object], *, locate: Callable[[str], Location] = Location
) -> Hyperparameters:
    """The hyperparameters of `algorithm` that `data` says; the others take their defaults.

    Args:
        algorithm: Its name.
        data: Field name to value, as JSON has them.
        locate: Where the user wrote what a dotted path names.

    Raises:
        ConfigError: If a key is another algorithm's or nobody's, a value mistyped or out of range,
            or a combination impossible.
    """
    kind, section = find_algorithm(algorithm).parameters, "algorithm_parameters"
    for key in data:
        if key in kind.__struct_fields__:
            continue  # looking further reads the metadata of all that is installed
        owners = [d.name for d in _definitions() if key in d.parameters.__struct_fields__]
        if owners:
            raise locate(f"{section}.{key}").error(
                f"{algorithm} has no such hyperparameter; it is {' and '.join(owners)}'s"
            )
    return read_struct(kind, data, path=section, locate=locate)


def _definitions() -> Iterable[AlgorithmDefinition]:
    for name in _names():
        # A broken one is named as soon as a client asks for it; the others can do without.
        with suppress(ConfigError):
            yield find_algorithm(name)
