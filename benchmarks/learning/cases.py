"""What is compared: for each case one environment, one target, and sides that try to reach it.

Settings of Stable-Baselines3 are those of rl-baselines3-zoo where it has the environment, and what
they leave out is the library's default on both sides; ours have the same names and values, unless
the side says otherwise.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["CASES", "Case", "Reference", "Side", "Streams", "find_case"]

ROOT: Final = Path(__file__).resolve().parents[2]
OURS_OWN: Final = "ours_own"
CUT_STEPS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Stable-Baselines3, in one process as its documentation shows it.

    Attributes:
        name: Of the side.
        algorithm: Class of the library.
        envs: Environments in its DummyVecEnv.
        parameters: Keyword arguments of the class, as JSON.
        linear: Those of them that fall linearly to 0 at the end of the budget.
        hidden_sizes: Of its networks; None: the library's default.
    """

    name: str = "sb3"
    algorithm: str
    envs: int = 1
    parameters: Mapping[str, object]
    linear: tuple[str, ...] = ()
    hidden_sizes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """This package: broker, dispatcher, worker and application processes.

    Attributes:
        name: Of the side.
        definition: What stands in the client's file, less spaces, client and seed.
        agents: Application processes, each with an agent.
        envs: Environments of each application.
        updates_ahead: How many updates' worth of steps may be unsettled, over all agents.
        versions_behind: Agents act with a policy that is so many versions old, on purpose.
    """

    name: str = "ours"
    definition: Mapping[str, object]
    agents: int = 1
    envs: int = 1
    updates_ahead: float = 1.0
    versions_behind: int = 0


Side = Reference | Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the comparison.

    Attributes:
        name: As on the command line.
        title: For people.
        environment: Gymnasium's id.
        target: Mean return of the last `window` training episodes that counts as learned.
        window: 100, where 100 episodes are not the whole budget.
        budget: Environment steps after which a run ends unlearned; schedules end there, too.
        sides: Who tries.
    """

    name: str
    title: str
    environment: str
    target: float
    window: int = 100
    budget: int
    sides: tuple[Side, ...] = field(repr=False)


def _definition(
    algorithm: str,
    parameters: Mapping[str, object],
    *,
    network: Mapping[str, object] | None = None,
    agent: Mapping[str, object] | None = None,
    worker: Mapping[str, object] | None = None,
) -> dict[str, object]:
    return {
        "algorithm": algorithm,
        "network_architecture": dict(network or {}),
        "algorithm_parameters": dict(parameters),
        "agent": dict(agent or {}),
        "worker": dict(worker or {}),
    }


def _shipped(name: str) -> dict[str, object]:
    """A definition of workers/, as it stands there."""
    found: dict[str, object] = json.loads((ROOT / "workers" / f"{name}.json").read_text())
    for key in ("client_id", "observation_space", "action_space"):
        del found[key]
    return found


def _ppo_cartpole() -> Case:
    budget = 100_000
    common = {"gamma": 0.98, "gae_lambda": 0.8, "batch_size": 256, "n_epochs": 20}
    rates = {"learning_rate": 1e-3, "clip_range": 0.2}
    ours = {
        **common,
        **rates,
        "n_steps": 8 * 32,
        "learning_rate_schedule": "linear",
        "clip_range_schedule": "linear",
        "total_timesteps": budget,
    }
    return Case(
        name="ppo_cartpole",
        title="PPO, CartPole-v1",
        environment="CartPole-v1",
        target=475.0,
        budget=budget,
        sides=(
            Reference(
                algorithm="PPO",
                envs=8,
                parameters={**common, **rates, "n_steps": 32},
                linear=("learning_rate", "clip_range"),
            ),
            Streams(
                envs=8,
                definition=_definition("PPO", ours),
            ),
            Streams(name=OURS_OWN, definition=_shipped("cartpole")),
        ),
    )


LUNAR_PPO: Final = {
    "learning_rate": 7e-4,
    "gamma": 0.995,
    "gae_lambda": 0.98,
    "ent_coef": 0.01,
    "batch_size": 64,
    "n_epochs": 10,
}
LUNAR_BUDGET: Final = 500_000


def _ppo_lunar_lander() -> Case:
    ours = _definition("PPO", {**LUNAR_PPO, "n_steps": 4 * 512}, agent={"max_trajectory_steps": 64})
    return Case(
        name="ppo_lunar_lander",
        title="PPO, LunarLander-v3",
        environment="LunarLander-v3",
        target=200.0,
        budget=LUNAR_BUDGET,
        sides=(
            Reference(algorithm="PPO", envs=4, parameters={**LUNAR_PPO, "n_steps": 512}),
            Streams(envs=4, definition=ours),
            Streams(name=OURS_OWN, definition=_shipped("lunar_lander")),
        ),
    )


def _off_policy(
    name: str,
    *,
    algorithm: str,
    environment: str,
    target: float,
    budget: int,
    parameters: Mapping[str, object],
    update_steps: int,
    window: int = 100,
    hidden_sizes: tuple[int, ...] = (256, 256),
    reference_extra: Mapping[str, object] | None = None,
    ours_extra: Mapping[str, object] | None = None,
    further: tuple[Side, ...] = (),
) -> Case:
    ours = {**parameters, "update_steps": update_steps, **(ours_extra or {})}
    network = {"hidden_sizes": list(hidden_sizes), "activation": "relu"}
    return Case(
        name=name,
        title=f"{algorithm}, {environment}",
        environment=environment,
        target=target,
        window=window,
        budget=budget,
        sides=(
            Reference(
                algorithm=algorithm,
                parameters={**parameters, **(reference_extra or {})},
                hidden_sizes=hidden_sizes,
            ),
            Streams(
                definition=_definition(
                    algorithm,
                    ours,
                    network=network,
                    # The learner sees no step of an open trajectory, and a cut costs it nothing.
                    agent={"max_trajectory_steps": min(CUT_STEPS, update_steps)},
                )
            ),
            *further,
        ),
    )


def _dqn_cartpole() -> Case:
    zoo_budget, budget = 50_000, 100_000
    parameters = {
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1000,
        "gamma": 0.99,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        # Steps, not a share: the zoo's 0.16 is of its own budget.
        "exploration_fraction": 0.16 * zoo_budget / budget,
        "exploration_final_eps": 0.04,
    }
    return _off_policy(
        "dqn_cartpole",
        algorithm="DQN",
        environment="CartPole-v1",
        target=475.0,
        budget=budget,
        parameters=parameters,
        update_steps=256,
        ours_extra={"total_timesteps": budget},
        further=(Streams(name=OURS_OWN, definition=_shipped("cartpole_dqn")),),
    )


def _dqn_lunar_lander() -> Case:
    zoo_budget, budget = 100_000, 200_000
    parameters = {
        "learning_rate": 6.3e-4,
        "batch_size": 128,
        "buffer_size": 50_000,
        "learning_starts": 0,
        "gamma": 0.99,
        "target_update_interval": 250,
        "train_freq": 4,
        "gradient_steps": -1,
        "exploration_fraction": 0.12 * zoo_budget / budget,
        "exploration_final_eps": 0.1,
    }
    return _off_policy(
        "dqn_lunar_lander",
        algorithm="DQN",
        environment="LunarLander-v3",
        target=200.0,
        budget=budget,
        parameters=parameters,
        # A version every 64 steps was too rare: a greedy policy that changes less often explores
        # less, and returns fell to -600 for a hundred episodes.
        update_steps=16,
        ours_extra={"total_timesteps": budget},
        further=(Streams(name=OURS_OWN, definition=_shipped("lunar_lander_dqn")),),
    )


def _sac_pendulum() -> Case:
    return _off_policy(
        "sac_pendulum",
        algorithm="SAC",
        environment="Pendulum-v1",
        target=-200.0,
        # All its episodes have 200 steps: 100 of them would be the zoo's whole budget.
        window=10,
        budget=20_000,
        parameters={"learning_rate": 1e-3},
        update_steps=64,
    )


def _ppo_agents() -> Case:
    sides = [
        Streams(name=f"agents_{agents}", agents=agents, definition=_shipped("lunar_lander"))
        for agents in (1, 4, 16)
    ]
    return Case(
        name="ppo_agents",
        title="PPO, LunarLander-v3, by number of agents",
        environment="LunarLander-v3",
        target=200.0,
        budget=LUNAR_BUDGET,
        sides=tuple(sides),
    )


LAGGING_PPO: Final = {"n_steps": 512, "batch_size": 64, "n_epochs": 4}
"""Of all sides that lag, and of the one that does not: versions that go a short way each. At the
shipped 2,048 steps a version, 8 of them are the sixth part of a whole training."""


def _lagging(versions: int, *, vtrace: bool) -> Streams:
    """Without or with V-trace (Espeholt et al. 2018, arXiv:1802.01561)."""
    shipped = _shipped("lunar_lander")
    parameters = shipped["algorithm_parameters"]
    if not isinstance(parameters, dict):
        raise TypeError(parameters)
    return Streams(
        name=f"lag_{versions}{'_vtrace' if vtrace else ''}",
        versions_behind=versions,
        definition={
            **shipped,
            "algorithm_parameters": {**parameters, **LAGGING_PPO, "vtrace": vtrace},
            # Nothing may be dropped for its age, nor its version be forgotten.
            "worker": {"max_policy_lag": versions + 8, "retain_versions": versions + 16},
        },
    )


def _ppo_lag() -> Case:
    return Case(
        name="ppo_lag",
        title="PPO, LunarLander-v3, by versions that agents are behind",
        environment="LunarLander-v3",
        target=200.0,
        budget=LUNAR_BUDGET,
        sides=(
            *(_lagging(versions, vtrace=True) for versions in (0, 2, 8, 32)),
            *(_lagging(versions, vtrace=False) for versions in (8, 32)),
        ),
    )


def _codec(name: str, shipped: str, environment: str, target: float, budget: int) -> Case:
    """Does it matter to learning that agents act by rounded weights?"""
    definition = _shipped(shipped)
    return Case(
        name=name,
        title=f"PPO, {environment}, versions published compactly and exactly",
        environment=environment,
        target=target,
        budget=budget,
        sides=tuple(
            Streams(name=codec, definition={**definition, "worker": {"model_codec": codec}})
            for codec in ("compact", "exact")
        ),
    )


CASES: Final = (
    _ppo_cartpole(),
    _ppo_lunar_lander(),
    _dqn_cartpole(),
    _dqn_lunar_lander(),
    _sac_pendulum(),
    _ppo_agents(),
    _ppo_lag(),
    _codec("codec_cartpole", "cartpole", "CartPole-v1", 475.0, 100_000),
    _codec("codec_lunar_lander", "lunar_lander", "LunarLander-v3", 200.0, LUNAR_BUDGET),
)


def find_case(name: str) -> Case:
    """The case of that name.

    Raises:
        KeyError: If there is none; it says which there are.
    """
    for case in CASES:
        if case.name == name:
            return case
    raise KeyError(f"no case {name!r}; there are {', '.join(case.name for case in CASES)}")
