"""From the learner's actor to what is published."""

from rl4sys_stream.algorithms.base import PolicyExport
from rl4sys_stream.algorithms.networks import MLP, GaussianActor
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["export_policy"]


def export_policy(actor: MLP, normalization: ObservationNormalization | None) -> PolicyExport:
    """A copy of `actor` under the tensor names that agents read, with its normalisation.

    Of outputs that are no means agents make probabilities.
    """
    return PolicyExport(
        weights=Weights.from_tensors(actor.tensors()),
        extras=BehaviorExtras(
            normalization=normalization,
            head="gaussian" if isinstance(actor, GaussianActor) else "categorical",
        ),
    )
