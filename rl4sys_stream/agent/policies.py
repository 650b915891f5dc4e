"""The policies that agents of one process share: equal models of equal specs act alike."""

from functools import cache

from rl4sys_stream.config import ClientSpec
from rl4sys_stream.model_store.shelf import ModelName, Shelf
from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.policy import ModelPolicy, build_policy

__all__ = ["policy_of"]


@cache
def _shared() -> Shelf[ModelPolicy]:
    return Shelf()


def policy_of(spec: ClientSpec, model: Model, name: ModelName) -> ModelPolicy:
    """What `build_policy` makes of `model`, or has made of it for another agent.

    Raises:
        WireFormatError: As `build_policy`.
        NonFiniteError: Likewise.
    """
    key = (name, spec)
    if (held := _shared().get(key)) is not None:
        return held
    made = build_policy(spec, model.weights, model.extras, model.version, model.token)
    return _shared().share(key, made)
