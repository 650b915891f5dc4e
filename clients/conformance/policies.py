"""Vectors of acting: from an observation to outputs, an action and its log-probability."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from clients.conformance.vectors import Collection, encoded
from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.config.spec import Activation
from rl4sys_stream.policy.extras import BehaviorExtras, HeadName, ObservationNormalization
from rl4sys_stream.policy.mlp import actor_layout
from rl4sys_stream.policy.policy import Policy, UniformPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space, space_from_json
from rl4sys_stream.spaces.flattening import flatten
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["add_flattening", "add_policies"]

F32 = np.float32
_DIGITS: Final = 7
"""Decimal digits of expected numbers: those of float32, whatever order sums were taken in."""


@dataclass(frozen=True, slots=True)
class _Model:
    """A client and a model of it.

    Attributes:
        name: Of the vector.
        spec: Of the client.
        extras: Of the model.
        masks: Whether some cases have masks.
        prior: Whether some have priors.
        weights: Of the model.
    """

    name: str
    spec: ClientSpec
    extras: BehaviorExtras = field(default_factory=BehaviorExtras)
    masks: bool = False
    prior: bool = False

    @property
    def weights(self) -> Weights:
        """Drawn; the same for the same name."""
        spec, head = self.spec, self.extras.head
        actions = spec.actions
        outputs = actions.choices or actions.dim * (2 if head == "state_gaussian" else 1)
        layout = actor_layout(
            spec.input_dim,
            spec.network.hidden_sizes,
            1 if spec.network.per_item else outputs,
            log_std=head == "gaussian",
        )
        rng = np.random.default_rng(list(self.name.encode()))
        return Weights(layout, (0.6 * rng.standard_normal(layout.size)).astype(F32))


def _spec(actions: Space, observations: Space | None = None, **network: Any) -> ClientSpec:  # noqa: ANN401
    algorithm = network.pop("algorithm", "PPO")
    sizes = {"hidden_sizes": (5, 4)} | network
    return ClientSpec(
        algorithm=algorithm,
        observation_space=observations or Box((3,)),
        action_space=actions,
        network=NetworkSpec(**sizes),
    )


def _head(name: HeadName, epsilon: float | None = None) -> BehaviorExtras:
    return BehaviorExtras(epsilon=epsilon, head=name)


def _models() -> Iterator[_Model]:
    norm = ObservationNormalization(
        np.array([0.5, -1, 0], F32), np.array([2, 0.25, 1], F32), clip=1.5
    )
    for activation in get_args(Activation):
        yield _Model(f"discrete_{activation}", _spec(Discrete(4), activation=activation))
    yield _Model("linear", _spec(Discrete(3), hidden_sizes=()))
    yield _Model("normalized", _spec(Discrete(3)), BehaviorExtras(norm))
    yield _Model("masked", _spec(Discrete(5)), masks=True)
    yield _Model("prior", _spec(Discrete(5)), masks=True, prior=True)
    yield _Model("many_actions", _spec(Discrete(40)), masks=True)
    yield _Model("multi_discrete", _spec(MultiDiscrete((3, 2, 4))), masks=True, prior=True)
    yield _Model("multi_binary", _spec(MultiBinary(3)), masks=True)
    yield _Model(
        "epsilon_greedy", _spec(Discrete(4), algorithm="DQN"), _head("epsilon_greedy", 0.4),
        masks=True,
    )  # fmt: skip
    bounded = Box((2, 2), (-1.0, -2.0, 0.0, -8.0), (1.0, 2.0, 0.5, 8.0))
    yield _Model("box", _spec(Box((3,))), _head("gaussian"))
    yield _Model("box_clipped", _spec(bounded), _head("gaussian"))
    yield _Model("box_squashed", _spec(bounded, squash_output=True), _head("gaussian"))
    yield _Model("state_gaussian", _spec(bounded, algorithm="SAC"), _head("state_gaussian"))
    items = _spec(Discrete(6), Box((6, 3)), per_item=True)
    yield _Model("per_item", items, masks=True, prior=True)


def _number(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _numbers(values: object) -> object:
    """Rounded where they are not whole."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return array.tolist()
    rounded = [_number(value) for value in array.ravel().tolist()]
    return rounded[0] if array.ndim == 0 else rounded


def _mask(rng: np.random.Generator, nvec: tuple[int, ...]) -> NDArray[np.bool_]:
    parts = []
    for n in nvec:
        part = rng.random(n) < 0.6
        part[rng.integers(n)] = True
        parts.append(part)
    return np.concatenate(parts)


def _cases(policy: Policy, model: _Model, dim: int) -> Iterator[dict[str, object]]:
    actions = model.spec.actions
    rng = np.random.default_rng([7, *model.name.encode()])
    for number in range(4):
        obs = rng.normal(0, 1.5, dim).astype(F32)
        mask = _mask(rng, actions.nvec) if model.masks and number % 2 else None
        prior = (
            rng.normal(0, 2, actions.choices).astype(F32) if model.prior and number > 1 else None
        )
        uniforms: list[float] = []

        def uniform() -> float:
            uniforms.append(_number(float(rng.random())))  # noqa: B023 - used within the turn
            return uniforms[-1]  # noqa: B023

        raw, log_prob = policy.act(obs, mask, uniform, prior)
        best, best_log_prob = policy.greedy(obs, mask, prior)
        yield {
            "observation": obs.tolist(),
            "mask": None if mask is None else mask.astype(int).tolist(),
            "prior": None if prior is None else prior.tolist(),
            "outputs": _numbers(policy.outputs(obs[None])[0]),
            "uniforms": uniforms,
            "raw": _numbers(raw),
            "log_prob": _number(log_prob),
            "applied": _numbers(actions.applied(raw)),
            "best": _numbers(best),
            "best_log_prob": _number(best_log_prob),
        }


def _refused() -> Iterator[tuple[str, ClientSpec, Weights, bytes]]:
    plain = _Model("refused", _spec(Discrete(4)))
    extras, weights = plain.extras.to_bytes(), plain.weights
    flat = weights.flat.copy()
    flat[3] = np.nan
    yield "nan_weight", plain.spec, Weights(weights.layout, flat), extras
    other = _Model("refused", _spec(Discrete(4), hidden_sizes=(5, 5))).weights
    yield "another_network", plain.spec, other, extras
    yield "another_number_of_actions", _spec(Discrete(5)), weights, extras
    yield "head_of_another_space", plain.spec, weights, _head("gaussian").to_bytes()
    box = _Model("refused", _spec(Box((2,))), _head("gaussian"))
    flat = box.weights.flat.copy()
    flat[-1] = 81
    yield "log_std_beyond_80", box.spec, Weights(box.weights.layout, flat), box.extras.to_bytes()
    for name, data in {
        "extras_empty": b"",
        "extras_unknown_version": extras.replace(b'"v":2', b'"v":3'),
        "extras_unknown_key": extras.replace(b"{", b'{"temperature":2,', 1),
        "extras_unknown_head": extras.replace(b"categorical", b"beta"),
        "epsilon_of_a_categorical": extras.replace(b'"epsilon":null', b'"epsilon":0.5'),
        "epsilon_above_1": _head("epsilon_greedy", 1.0).to_bytes().replace(b"1.0", b"1.5"),
        "normalization_of_another_width": BehaviorExtras(
            ObservationNormalization(np.zeros(2, F32), np.ones(2, F32), 10.0)
        ).to_bytes(),
        "normalization_of_nan": _normalized(np.array([np.nan, 0, 0], F32), 10.0),
        "clip_of_0": _normalized(np.zeros(3, F32), 0.0),
    }.items():
        yield name, plain.spec, weights, data


def _normalized(mean: NDArray[np.float32], clip: float) -> bytes:
    scale = encoded(np.ones(3, F32).tobytes())
    return (
        f'{{"v":2,"head":"categorical","normalization":{{"mean":"{encoded(mean.tobytes())}",'
        f'"scale":"{scale}","clip":{clip}}},"epsilon":null}}'
    ).encode()


def add_policies(collection: Collection) -> None:
    """`policies.json`, and the weights."""
    vectors: list[dict[str, Any]] = []

    def one(name: str, spec: ClientSpec, weights: Weights, extras: bytes) -> dict[str, Any]:
        flat = weights.flat.astype("<f4").tobytes()
        vectors.append(
            {
                "name": name,
                "spec": spec.to_json(),
                "layout": [
                    {"name": tensor, "dtype": "<f4", "shape": list(shape)}
                    for tensor, shape in zip(
                        weights.layout.names, weights.layout.shapes, strict=True
                    )
                ],
                "flat": collection.add(f"policies/{name}.f32", flat),
                "extras": extras.decode(),
            }
        )
        return vectors[-1]

    for model in _models():
        policy = build_policy(model.spec, model.weights, model.extras, 1, "1:a")
        found = one(model.name, model.spec, model.weights, model.extras.to_bytes())
        dim = model.spec.input_dim * (6 if model.spec.network.per_item else 1)
        found["cases"] = list(_cases(policy, model, dim))
    for name, spec, weights, extras in _refused():
        one(name, spec, weights, extras)["refused"] = "format"
    for kind, actions in (
        ("discrete", Discrete(3)),
        ("multi_discrete", MultiDiscrete((2, 3))),
        ("box", Box((2,), -1.0, 3.0)),
        ("unbounded_box", Box((2,))),
    ):
        model = _Model(f"chance_{kind}", _spec(actions), masks="box" not in kind)
        chance = UniformPolicy(model.spec.actions)
        cases = list(_cases(chance, model, 3))
        vectors.append({"name": model.name, "spec": model.spec.to_json(), "cases": cases})
    collection.describe("policies.json", vectors)


def add_flattening(collection: Collection) -> None:
    """`flattening.json`: observations of every kind of space as vectors."""
    nested = {
        "type": "dict",
        "spaces": [
            ["load", {"type": "box", "shape": [2, 2]}],
            ["kind", {"type": "discrete", "n": 3}],
            ["pair", {"type": "tuple", "spaces": [
                {"type": "multi_discrete", "nvec": [2, 3]}, {"type": "multi_binary", "n": 2}]}],
        ],
    }  # fmt: skip
    cases: list[tuple[str, dict[str, Any], Any]] = [
        ("box", {"type": "box", "shape": [2, 2]}, [[1.5, -2], [0.25, 3]]),
        ("scalar", {"type": "box", "shape": []}, 0.5),
        ("discrete", {"type": "discrete", "n": 4}, 2),
        ("multi_discrete", {"type": "multi_discrete", "nvec": [3, 2]}, [2, 0]),
        ("multi_binary", {"type": "multi_binary", "n": 3}, [1, 0, 1]),
        ("dict", nested, {"load": [[1, 2], [3, 4]], "kind": 1, "pair": [[1, 2], [0, 1]]}),
    ]
    vectors: list[dict[str, Any]] = [
        {
            "name": name,
            "space": space,
            "observation": observation,
            "flattened": flatten(space_from_json(space), observation).tolist(),
        }
        for name, space, observation in cases
    ]
    collection.describe("flattening.json", vectors)
