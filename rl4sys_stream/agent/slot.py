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
        rollbacks: Times that the broker had lost the version that acted.
        lineage_changes: Times that the training history was another one.
    """

    __slots__ = (
        "arrived",
        "installed_at",
        "lineage_changes",
        "model",
        "policy",
        "refused",
        "rollbacks",
    )

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.model: Model | None = None
        self.installed_at: float | None = None
        self.arrived = threading.Event()
        self.refused = 0
        self.rollbacks = 0
        self.lineage_changes = 0

    def install(self, model: Model, policy: ModelPolicy, *, now: float) -> None:
        """Let `policy` act from now on."""
        if self.model is not None:
            self.lineage_changes += self.model.lineage != model.lineage
        self.rollbacks += model.after_loss
        self.policy = policy
        self.model = model
        self.installed_at = now
        self.arrived.set()
