"""A notice as the agents of one process take it: decoded once, and made into a policy once."""

from rl4sys_stream.agent.policies import policy_of
from rl4sys_stream.broker.connection import BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.model_store.notice import Notice, follow_notice, read_notice
from rl4sys_stream.model_store.shelf import model_name
from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.policy import ModelPolicy, Policy

__all__ = ["Announcement"]


class Announcement:
    """A notice, and what it leads to: made for the first agent that asks, and the same for all.

    Used by one thread.
    """

    def __init__(self, data: bytes, address: BrokerAddress, keys: ClientKeys) -> None:
        """Nothing is decoded yet.

        Args:
            data: As it came from the channel.
            address: Of the broker it came from.
            keys: Of the client.
        """
        self._data = data
        self._address = address
        self._keys = keys
        self._notice: Notice | None = None
        self._made: dict[Policy, tuple[Model, ModelPolicy]] = {}

    def is_old(self, current: Model) -> bool:
        """Whether it tells no more than who has `current` knows.

        Raises:
            WireFormatError: If it is no notice.
        """
        notice = self._decoded()
        same_line = (notice.lineage, notice.token) == (current.lineage, current.token)
        return same_line and 0 < notice.version <= current.version

    def after(
        self, current: Model, acting: Policy, spec: ClientSpec
    ) -> tuple[Model, ModelPolicy] | None:
        """What to act by next, by the diff that rides along.

        Args:
            current: What the agent has.
            acting: The policy made of it. Agents of equal specs share one, and so the next.
            spec: Of the agent.

        Returns:
            None if there is no diff, it starts from another model than `current`, or it was
            published under another token: look at the head.

        Raises:
            WireError: If it does not lead to what was published, or that does not fit the client;
                likewise.
        """
        notice = self._decoded()
        base = (notice.lineage, notice.base_version, notice.base_token)
        if notice.token != current.token or base != (
            current.lineage,
            current.version,
            current.token,
        ):
            return None
        if (made := self._made.get(acting)) is not None:
            return made
        name = model_name(self._address, self._keys, notice.lineage, notice.version, notice.token)
        model = follow_notice(notice, current, name)
        if model is None:
            return None
        made = model, policy_of(spec, model, name)
        self._made[acting] = made
        return made

    def _decoded(self) -> Notice:
        if self._notice is None:
            self._notice = read_notice(self._data)
        return self._notice
