"""Where the decision path finds the policy, and the refresher puts the next one."""

import threading

from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.policy import ModelPolicy, Policy

__all__ = ["PolicySlot"]


class PolicySlot:
    """The policy that acts. Whoever reads `policy` once has a whole one, whatever happens next.

    Attributes:
        policy: Immutable; replaced whole.
        model: What it was built from; None before any.
        installed_at: Monotonic seconds; None before any model.
        arrived: Set once there is a model.
        refused: Models that did not decode or fit.
        rollbacks: Times that the broker went back to an older version.
    """

    __slots__ = ("arrived", "installed_at", "model", "policy", "refused", "rollbacks")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.model: Model | None = None
        self.installed_at: float | None = None
        self.arrived = threading.Event()
        self.refused = 0
        self.rollbacks = 0

    def install(self, model: Model, policy: ModelPolicy, *, now: float) -> None:
        """Let `policy` act from now on."""
        before = self.model
        if before and before.lineage == model.lineage and model.version <= before.version:
            self.rollbacks += 1
        self.policy = policy
        self.model = model
        self.installed_at = now
        self.arrived.set()
