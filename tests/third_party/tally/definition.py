"""What agents, commands and workers need to know: no torch here."""

from rl4sys_stream.config import AlgorithmDefinition, Hyperparameters
from rl4sys_stream.config.hyperparameters.base import Count, Positive

__all__ = ["TALLY", "TallyParameters"]


class TallyParameters(Hyperparameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a tally is kept.

    Attributes:
        update_steps: Environment steps that one update takes in.
        sharpness: By how much the logit grows with the mean reward.
    """

    update_steps: Count = 32
    sharpness: Positive = 10.0

    @property
    def steps_per_update(self) -> int:
        """See `Hyperparameters.steps_per_update`."""
        return self.update_steps


TALLY = AlgorithmDefinition(
    name="Tally",
    parameters=TallyParameters,
    factory="tally.learner:Tally",
    actions=("Discrete",),
    on_policy=False,
)
