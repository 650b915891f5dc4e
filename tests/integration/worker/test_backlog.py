"""What piled up while no worker ran is trained on, not dropped for its age."""

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.testing import eventually
from tests.integration.worker.world import ROLLOUT, World


def test_a_backlog_of_many_rollouts_is_trained_within_the_lag_limit(world: World) -> None:
    """Forty rollouts of one policy, eight versions of patience: rollouts grow, none is dropped."""
    world.define(max_policy_lag=8)
    world.register()
    world.feeder().send(40 * ROLLOUT)
    world.start()
    eventually(
        lambda: world.version() > 1 and world.broker.call("XLEN", world.keys.traj) < ROLLOUT,
        20,
        "the backlog is settled",
    )
    head = world.head()
    assert head is not None
    assert head.counts.dropped == 0
    assert head.counts.trained >= 39 * ROLLOUT
    assert head.version <= 9
    assert audit_client(world.broker, world.keys).total("dropped") == 0
