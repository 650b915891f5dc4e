"""Where the decision path finds its policy: swapped whole, held back while stopped."""

import numpy as np
import pytest

from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.policy import ModelPolicy, UniformPolicy, build_policy
from rl4sys_stream.spaces import Discrete
from rl4sys_stream.spaces.actions import ActionFormat
from tests.integration.agent.world import SPEC, weights

CHANCE = UniformPolicy(ActionFormat.of(Discrete(4)))


def version(number: int) -> tuple[Model, ModelPolicy]:
    """A model and its policy."""
    model = Model(number, "1:a", "line", weights(1), BehaviorExtras())
    return model, build_policy(SPEC, model.weights, model.extras, number, "1:a")


@pytest.fixture
def slot() -> PolicySlot:
    """With a first version that acts."""
    made = PolicySlot(CHANCE)
    made.install(*version(1), now=0.0)
    return made


def test_a_stopped_slot_acts_by_no_model_until_it_is_resumed(slot):
    """And then by the one that acted before."""
    slot.stop(CHANCE)
    assert (slot.policy, slot.acting, slot.model.version) == (CHANCE, None, 1)
    slot.stop(CHANCE)
    slot.resume()
    assert (slot.policy.version, slot.acting) == (1, slot.model)
    slot.resume()
    assert slot.policy.version == 1


def test_a_model_that_comes_while_it_is_stopped_acts_once_it_is_resumed(slot):
    """Not before: nobody else may start an agent that was stopped."""
    slot.stop(CHANCE)
    slot.install(*version(2), now=1.0)
    assert slot.policy is CHANCE
    slot.resume()
    assert slot.policy.version == 2
    assert np.isfinite(slot.policy.outputs(np.zeros((1, 3), np.float32))).all()
