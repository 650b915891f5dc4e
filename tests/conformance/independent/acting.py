"""Acting (§8) and whom control means (§10)."""

import base64
import fnmatch
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from tests.conformance.independent.entries import nvec_of
from tests.conformance.independent.frames import Model
from tests.conformance.independent.refusal import require, strict_json, whole

__all__ = ["Actor", "directive", "flatten"]

Array = NDArray[np.float64]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
    "elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
HEADS = {"categorical", "epsilon_greedy", "gaussian", "state_gaussian"}


def flatten(space: dict[str, Any], value: Any) -> list[float]:
    """An observation as numbers."""
    match space["type"]:
        case "box" | "multi_binary":
            return [float(x) for x in np.ravel(value)]
        case "discrete":
            return [float(i == value) for i in range(space["n"])]
        case "multi_discrete":
            pairs = zip(space["nvec"], value, strict=True)
            return [float(i == x) for n, x in pairs for i in range(n)]
        case "dict":
            return [x for key, part in space["spaces"] for x in flatten(part, value[key])]
    return [x for part, v in zip(space["spaces"], value, strict=True) for x in flatten(part, v)]


class Actor:
    """A model that acts, or chance."""

    def __init__(self, spec: dict[str, Any], model: Model | None, extras: bytes) -> None:
        """Check that the model is the client's."""
        self.space = spec["action_space"]
        self.nvec = nvec_of(self.space)
        self.dim = len(self.nvec) or math.prod(self.space["shape"])
        self.network = spec["network_architecture"]
        self.squash = self.network.get("squash_output", False) or spec["algorithm"] == "SAC"
        self.items = self.space["n"] if self.network.get("per_item") else 0
        self.head, self.epsilon = "chance", 0.0
        self.norm: tuple[Array, Array, float] | None = None
        self.log_std: list[float] = []
        if model is not None:
            self._read_extras(extras)
            shape = spec["observation_space"]["shape"]
            self._read_weights(model, shape[-1] if self.items else math.prod(shape))

    def _read_extras(self, data: bytes) -> None:
        extras = strict_json(data)
        require(isinstance(extras, dict), "no extras")
        require(extras.keys() == {"v", "head", "normalization", "epsilon"}, "unknown extras")
        require(extras["v"] == 2 and extras["head"] in HEADS, "unknown extras")
        self.head = extras["head"]
        require((extras["epsilon"] is None) == (self.head != "epsilon_greedy"), "epsilon")
        self.epsilon = extras["epsilon"] or 0.0
        require(0 <= self.epsilon <= 1, "epsilon")
        if (norm := extras["normalization"]) is not None:
            mean, scale = (
                np.frombuffer(base64.b64decode(norm[key]), "<f4").astype(np.float64)
                for key in ("mean", "scale")
            )
            finite = np.isfinite([*mean, *scale, norm["clip"]]).all()
            require(finite and norm["clip"] > 0 and (scale > 0).all(), "no normalization")
            require(mean.shape == scale.shape, "no normalization")
            self.norm = (mean, scale, norm["clip"])

    def _read_weights(self, model: Model, inputs: int) -> None:
        kinds = {
            "epsilon_greedy": self.space["type"] == "discrete",
            "categorical": bool(self.nvec),
            "gaussian": not self.nvec,
            "state_gaussian": not self.nvec,
        }
        require(kinds[self.head], "a head of other actions")
        outputs = sum(self.nvec) or self.dim * (2 if self.head == "state_gaussian" else 1)
        widths = [inputs, *self.network.get("hidden_sizes", [64, 64]), outputs]
        if self.items:
            require(self.head == "categorical", "a head of other actions")
            widths[-1] = 1
        expected: list[tuple[str, tuple[int, ...]]] = []
        for layer in range(len(widths) - 1):
            expected += [
                (f"pi.{layer}.weight", (widths[layer], widths[layer + 1])),
                (f"pi.{layer}.bias", (widths[layer + 1],)),
            ]
        if self.head == "gaussian":
            expected.append(("log_std", (self.dim,)))
        require(list(model.tensors) == expected, "another network")
        require(np.isfinite(model.flat).all(), "a weight is not finite")
        require(self.norm is None or len(self.norm[0]) == inputs, "normalises other inputs")
        parts = [
            model.flat[span].astype(np.float64).reshape(shape)
            for span, (_, shape) in zip(model.spans(), model.tensors, strict=True)
        ]
        if self.head == "gaussian":
            self.log_std = parts.pop().tolist()
            require(max(map(abs, self.log_std)) <= 80, "a log_std beyond 80")
        self.layers = list(zip(parts[::2], parts[1::2], strict=True))

    def outputs(self, observation: list[float]) -> Array:
        """Of the network; zeros of chance."""
        if self.head == "chance":
            return np.zeros(sum(self.nvec) or self.dim)
        x = np.array(observation, np.float64)
        if self.items:
            x = x.reshape(self.items, -1)
        if self.norm is not None:
            mean, scale, clip = self.norm
            x = np.clip((x - mean) * scale, -clip, clip)
        activate = ACTIVATIONS[self.network.get("activation", "tanh")]
        for weight, bias in self.layers[:-1]:
            x = activate(x @ weight + bias)
        weight, bias = self.layers[-1]
        return (x @ weight + bias).ravel()

    def act(self, case: dict[str, Any]) -> tuple[list[Any], float]:
        """The drawn raw action, and its log-probability."""
        uniforms = iter(case["uniforms"])
        outputs = self.outputs(case["observation"])
        if not self.nvec:
            return self._vector(outputs, uniforms)
        if case["prior"] is not None:
            outputs = outputs + np.array(case["prior"])
        allowed = np.array(case["mask"] or [1] * sum(self.nvec), bool)
        if self.head == "epsilon_greedy":
            return self._explore(outputs, allowed, uniforms)
        actions, total, start = [], 0.0, 0
        for n in self.nvec:
            logits = np.where(allowed, outputs, -np.inf)[start : start + n]
            weights = np.exp(logits - logits.max())
            threshold = next(uniforms) * weights.sum()
            action = int(np.argmax(np.cumsum(weights) > threshold))
            actions.append(action)
            total += math.log(weights[action] / weights.sum())
            start += n
        return actions, total

    def _explore(
        self, values: Array, allowed: NDArray[np.bool_], uniforms: Iterator[float]
    ) -> tuple[list[Any], float]:
        places = np.flatnonzero(allowed)
        best = action = int(places[np.argmax(values[places])])
        if next(uniforms) < self.epsilon:
            action = int(places[int(next(uniforms) * len(places))])
        share = self.epsilon / len(places)
        return [action], math.log(share + (1 - self.epsilon) * (action == best))

    def _vector(self, outputs: Array, uniforms: Iterator[float]) -> tuple[list[Any], float]:
        if self.head == "chance" and "low" in self.space:
            low, high = (np.broadcast_to(self.space[k], self.dim) for k in ("low", "high"))
            shares = np.array([next(uniforms) for _ in range(self.dim)])
            return (low + shares * (high - low)).tolist(), -float(np.log(high - low).sum())
        means, log_std = outputs[: self.dim], np.array(self.log_std or [0.0] * self.dim)
        if self.head == "state_gaussian":
            log_std = np.clip(outputs[self.dim :], -20, 2)
        normals: list[float] = []
        while len(normals) < self.dim:
            radius = math.sqrt(-2 * math.log(1 - next(uniforms)))
            angle = 2 * math.pi * next(uniforms)
            normals += [radius * math.cos(angle), radius * math.sin(angle)]
        raw = means + np.exp(log_std) * normals[: self.dim]
        z = (raw - means) / np.exp(log_std)
        terms = -0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi)
        if self.squash and self.head != "chance":
            size = np.abs(raw)
            terms -= 2 * (math.log(2) - size - np.log1p(np.exp(-2 * size)))
        return raw.tolist(), float(terms.sum())


def directive(fields: dict[str, bytes], agent_id: str) -> dict[str, Any]:
    """What an agent is to act by."""
    salt = fields.get("salt", b"").decode()
    rules = strict_json(fields.get("rules") or b"[]")
    require(isinstance(rules, list), "no rules")
    held = None
    for rule in rules:
        require(rule.get("action") in {"pin", "fallback"}, "an unknown action")
        if _selects(rule.get("agents", {}), salt, agent_id) and held is None:
            held = rule
    promoted = fields.get("promoted") or b"null"
    incumbent = strict_json(promoted)
    if incumbent is not None:
        require(isinstance(incumbent.get("token"), str), "a promotion of nothing")
        whole(incumbent.get("version"))
    if held is not None:
        state = "pinned" if held["action"] == "pin" else "stopped"
        version, token = held.get("version", 0), held.get("token", "")
        return {"state": state, "version": version, "token": token, "rule_id": held["id"]}
    if incumbent is not None:
        named = {key: incumbent[key] for key in ("version", "token")}
        return {"state": "promoted", **named, "rule_id": ""}
    return {"state": "", "version": 0, "token": "", "rule_id": ""}


def _selects(agents: dict[str, Any], salt: str, agent_id: str) -> bool:
    require(agents.keys() <= {"pattern", "percent"}, "an unknown selection")
    percent = agents.get("percent")
    require(percent is None or 0 < percent <= 100, "no share")
    if (pattern := agents.get("pattern")) and not fnmatch.fnmatchcase(agent_id, pattern):
        return False
    place = xxhash.xxh3_64_intdigest(salt.encode() + b"\0" + agent_id.encode())
    return percent is None or place * 100 < percent * 2**64
