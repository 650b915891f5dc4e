"""What a chaos run consists of."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.identity import OBS_DIM

__all__ = ["ChaosSettings", "ClientPlan", "write_definition"]

N_ACTIONS = 2
AGENT_ROOM = 200_000


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """One client: its name and what its worker trains with."""

    name: str
    algorithm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosSettings:
    """Size and pace of a run.

    Attributes:
        minutes: Length of the time in which faults begin.
        faults: How many.
        seed: Of the choice of faults; the processes' timing is the machine's.
        clients: What is trained.
        agents: For each client; one of them without a spool, in an application that is never
            killed.
        episodes_per_s: Each agent's pace.
        n_steps: Of one rollout.
        lease_s: Of the workers.
        retain_s: Of the agents; the tail that a broker loses is shorter.
        cut_s: Most of the broker's last seconds that a fault cuts off.
        settle_s: Patience after the last fault.
    """

    minutes: float
    faults: int
    seed: int
    clients: tuple[ClientPlan, ...]
    agents: int
    episodes_per_s: float = 12.0
    n_steps: int = 128
    lease_s: float = 2.0
    retain_s: float = 3.0
    cut_s: float = 1.0
    settle_s: float = 60.0


def write_definition(folder: Path, client: ClientPlan, settings: ChaosSettings) -> Path:
    """The client's definition, for its worker and for its agents."""
    definition = {
        "client_id": client.name,
        "algorithm": client.algorithm,
        "observation_space": {"type": "box", "shape": [OBS_DIM]},
        "action_space": {"type": "discrete", "n": N_ACTIONS},
        "network_architecture": {"hidden_sizes": [16]},
        "algorithm_parameters": _parameters(client, settings),
        "communication": {"timeout": 2.0},
        "agent": {
            "retain_s": settings.retain_s,
            "heartbeat_s": 0.5,
            "poll_interval_s": 0.5,
            # Room for the whole run: then there is no reason to drop, and the judge excuses none.
            "queue_entries": AGENT_ROOM,
            "high_water_entries": AGENT_ROOM,
        },
        "worker": {
            "lease_s": settings.lease_s,
            "lease_renew_s": settings.lease_s / 4,
            "stage_ttl_s": 30.0,
            "read_block_s": 0.2,
        },
    }
    path = folder / f"{client.name}.json"
    path.write_text(json.dumps(definition, indent=1), encoding="utf-8")
    return path


def _parameters(client: ClientPlan, settings: ChaosSettings) -> dict[str, int]:
    """Small and fast, so that commits are frequent, and a replay buffer is soon full."""
    if client.algorithm == "PPO":
        return {
            "n_steps": settings.n_steps,
            "batch_size": 64,
            "n_epochs": 2,
            "seed": settings.seed,
        }
    if client.algorithm == "DQN":
        return {
            "update_steps": settings.n_steps,
            "batch_size": 32,
            "buffer_size": 16 * settings.n_steps,
            "learning_starts": settings.n_steps,
            "total_timesteps": 100 * settings.n_steps,
            "seed": settings.seed,
        }
    raise ValueError(f"this run has no parameters for {client.algorithm}")
