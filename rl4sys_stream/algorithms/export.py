"""From the learner's actor to what is published, and back."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.algorithms.base import PolicyExport
from rl4sys_stream.algorithms.networks import MLP, GaussianActor
from rl4sys_stream.errors import ConfigError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["check_normalization", "export_policy", "load_weights"]


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


def load_weights(tensors: Mapping[str, NDArray[np.float32]], weights: Weights) -> None:
    """Write published weights into an actor.

    Args:
        tensors: Views of the actor's parameters by name.
        weights: Of a model.

    Raises:
        WireFormatError: If a name or a shape differs; nothing was changed.
    """
    given = weights.tensors()
    ours = {name: tensor.shape for name, tensor in tensors.items()}
    theirs = {name: tensor.shape for name, tensor in given.items()}
    if ours != theirs:
        different = sorted(set(ours.items()) ^ set(theirs.items()))
        raise WireFormatError(
            f"the model is another network's: {', '.join(sorted({name for name, _ in different}))} "
            "differ"
        )
    for name, tensor in tensors.items():
        tensor[...] = given[name]


def check_normalization(policy: PolicyExport, *, normalizes: bool) -> None:
    """Refuse a policy that sees other observations than this learner would give it.

    Args:
        policy: Of another training.
        normalizes: The hyperparameter `normalize_observations`.

    Raises:
        ConfigError: If one of the two normalises them and the other does not.
    """
    needed = policy.extras.normalization is not None
    if needed != normalizes:
        raise ConfigError(
            f"the imported model was trained {'with' if needed else 'without'} it: set it to "
            f"{str(needed).lower()}",
            path="algorithm_parameters.normalize_observations",
        )
