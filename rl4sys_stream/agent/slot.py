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
        refused: Models that did not decode or fit, or only from a keyframe.
        rollbacks: Times that the broker had lost the version that acted.
        lineage_changes: Times that the training history was another one.
        stopped: No model acts, although there may be one.
    """

    __slots__ = (
        "_resumed",
        "arrived",
        "installed_at",
        "lineage_changes",
        "model",
        "policy",
        "refused",
        "rollbacks",
        "stopped",
    )

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.model: Model | None = None
        self.installed_at: float | None = None
        self.arrived = threading.Event()
        self.refused = 0
        self.rollbacks = 0
        self.lineage_changes = 0
        self.stopped = False
        self._resumed = policy

    @property
    def acting(self) -> Model | None:
        """What `policy` was built from; None where chance or the fallback acts."""
        return self.model if self.policy.version else None

    def install(self, model: Model, policy: ModelPolicy, *, now: float) -> None:
        """Let `policy` act from now on, or from `resume` on."""
        if self.model is not None:
            self.lineage_changes += self.model.lineage != model.lineage
        self.rollbacks += model.after_loss
        self.refused += model.detour
        self._resumed = policy
        if not self.stopped:
            self.policy = policy
        self.model = model
        self.installed_at = now
        self.arrived.set()

    def stop(self, policy: Policy) -> None:
        """Let no model act from now on, but `policy`, whose version is 0."""
        if not self.stopped:
            self.stopped = True
            self._resumed = self.policy
            self.policy = policy

    def resume(self) -> None:
        """Let the newest model act again."""
        if self.stopped:
            self.stopped = False
            self.policy = self._resumed
