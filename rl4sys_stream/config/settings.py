"""Settings of the two processes: the agent in the application, and the worker that trains."""

from typing import Annotated, Final, Literal

import msgspec

from rl4sys_stream.errors import ConfigError

__all__ = ["AgentSettings", "WorkerSettings"]

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
EntryBytes = Annotated[int, msgspec.Meta(ge=1 << 10, le=512 << 20)]
CommitEntries = Annotated[int, msgspec.Meta(ge=1, le=4000)]
Versions = Annotated[int, msgspec.Meta(ge=2)]
SpoolBytes = Annotated[int, msgspec.Meta(ge=1 << 16)]
FolderName = Annotated[str, msgspec.Meta(min_length=1)]
RetainedBytes = Annotated[int, msgspec.Meta(ge=1 << 20)]
ForgetSeconds = Annotated[float, msgspec.Meta(ge=3600)]
BlockSeconds = Annotated[float, msgspec.Meta(gt=0, le=2)]
Margin = Annotated[float, msgspec.Meta(ge=0)]
Budget = Annotated[float, msgspec.Meta(ge=1e-9, le=1.0)]
KeyframeRatio = Annotated[float, msgspec.Meta(ge=0, le=100)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]

RENEWALS_PER_LEASE: Final = 3
"""A lease outlives two lost renewals, so that one slow answer does not cost the worker its job."""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent records, queues and sends trajectories, and refreshes its policy.

    Attributes:
        max_trajectory_steps: A longer episode is cut into trajectories of this many steps, which
            bootstrap from the observation at the cut.
        codec: How trajectories are encoded: "columns", or "protobuf", which needs the extra of that
            name where the agent runs. Workers take both at any time.
        queue_entries: Ended trajectories that may wait for the sender.
        queue_bytes: Their size, encoded.
        drop_policy: What happens when the queue is full: "drop_oldest", "drop_newest", or "block",
            which makes the application wait. Drops are counted.
        block_timeout_s: Longest wait under "block", after which the newest is dropped.
        high_water_entries: The sender pauses while this many unsettled entries lie in the stream.
        high_water_bytes: The sender pauses while unsettled entries of this size lie there
            (estimated from the size of this agent's last ones, as many). Up to one batch of 1 MiB,
            or one entry, goes beyond it.
        reward_timeout_s: An ended trajectory whose rewards are still missing after this long is
            quarantined, and counted.
        reward_wait_steps: Steps of ended trajectories that may wait for rewards in all; beyond it
            the oldest of these trajectories are quarantined, and counted.
        retain_s: A sent entry is kept this long after the broker's answer, to be offered again if
            the broker loses it; above the broker's fsync interval and replica lag.
        retain_bytes: Size of what is kept so; sending pauses while it is full.
        spool_dir: A folder in which ended trajectories are kept until the broker has them for good,
            so that they survive the application; null: they live in its memory alone. Agents may
            share it, and finish what dead ones left there.
        spool_bytes: Size of the trajectories that may wait there, together with what dead agents
            left. What finds no room beside the latter lives in memory, within `queue_bytes`; then
            `drop_policy` decides.
        spool_fsync: Whether to wait for the disk at each end of a trajectory. Without it they
            survive the end of the process, with it also that of the machine.
        poll_interval_s: Longest time between two looks for a newer model, notices apart.
        heartbeat_s: Time between two heartbeats, which carry the agent's counts.
        deadline_s: A decision that took longer than this, from the call on, is answered by the
            application's fallback instead, recorded as the fallback's, and counted; None: never.
        seed: Of the sampling of actions; None: fresh. Agents that share a seed draw the same
            numbers, so give each process its own.
    """

    max_trajectory_steps: Count = 256
    codec: Literal["columns", "protobuf"] = "columns"
    queue_entries: Count = 4096
    queue_bytes: Count = 64 << 20
    drop_policy: Literal["drop_oldest", "drop_newest", "block"] = "drop_oldest"
    block_timeout_s: Seconds | None = None
    high_water_entries: Count = 4096
    high_water_bytes: Count = 256 << 20
    reward_timeout_s: Seconds = 600.0
    reward_wait_steps: Count = 1 << 18
    retain_s: Seconds = 3.0
    retain_bytes: Count = 64 << 20
    spool_dir: FolderName | None = None
    spool_bytes: SpoolBytes = 256 << 20
    spool_fsync: bool = False
    poll_interval_s: Seconds = 1.0
    heartbeat_s: Seconds = 1.0
    deadline_s: Seconds | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        """Refuse settings under which an application could hang.

        Raises:
            ConfigError: If `drop_policy` is "block" without a timeout.
        """
        if self.drop_policy == "block" and self.block_timeout_s is None:
            raise ConfigError(
                'drop_policy "block" makes the application wait, so it needs a limit: set '
                "block_timeout_s, in seconds",
                path="block_timeout_s",
            )


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a worker takes in, commits and publishes.

    Attributes:
        max_policy_lag: Trajectories acted by a model this many versions behind the learner's, or
            fewer, are trained on; older ones are dropped, and counted. At least 1, because agents
            act while the worker trains.
        lease_s: A worker that has not renewed its lease for this long may be replaced.
        lease_renew_s: Time between two renewals; at most a third of `lease_s`.
        max_entry_bytes: A larger stream entry is quarantined undecoded. It is read whole all the
            same: what may be appended at all is for the broker to limit (proto-max-bulk-len).
        max_entry_steps: One with more steps is quarantined, too.
        max_commit_entries: Entries that one commit settles; 4000 hold the broker for about 10 ms.
        read_entries: Entries asked for in one read of the stream; fewer where as many of
            `max_entry_bytes` would be more than 64 MiB.
        read_block_s: Longest wait of one read; at most 2, so that a stop is noticed.
        model_codec: How model versions are published: "compact", on the coarsest grid that the
            budget allows, which makes their diffs small; or "exact", bit for bit as the learner
            has them.
        kl_budget: How far the published policy may be from the learner's under "compact": mean
            Kullback-Leibler divergence in nats, measured on what was trained on last.
        value_error_budget: The same where actions follow from action values: their mean squared
            error, relative to their variance.
        keyframe_ratio: A version gets a snapshot when the diffs since the last one are this many
            times as large: 1 has a joining agent read at most two snapshots' worth.
        direct_diffs: A version whose number is a multiple of one of these gets a diff from as many
            versions before, too, for agents that are behind; [4, 16, 64], for example.
        retain_versions: Model versions kept in the broker, each with its checkpoint.
        retain_model_bytes: Snapshots and diffs of kept versions, at most, even if fewer versions
            stay; null: whatever they come to. What the newest version needs stays in any case, and
            so does what is pinned.
        retain_model_s: Versions older than this go, even if fewer stay; likewise.
        stage_ttl_s: A staged but uncommitted model or checkpoint expires after this long; above
            `lease_s`.
        forget_agents_s: Books of agents that closed this long ago are added up, and no longer kept
            for each of them; those that were killed stay. At least an hour, so that nobody looks
            for an agent that has just gone.
        retained_bytes: What a replay buffer may keep in the stream, so that it can be filled again
            after a restart. Of very short trajectories it may hold more than this; the oldest are
            then in memory only.
        max_failed_updates: The worker stops after this many updates in a row that fail as a whole:
            losses or weights that are not finite, or an error.
        torch_threads: Threads of PyTorch.
        promotion_margin: The worker promotes a version whose mean return is at least the promoted
            one's less this, and agents act by the promoted one; null: only people promote.
        promotion_min_episodes: Whole episodes that each of the two must have acted for that.
    """

    max_policy_lag: Count = 8
    lease_s: Seconds = 10.0
    lease_renew_s: Seconds = 3.0
    max_entry_bytes: EntryBytes = 8 << 20
    max_entry_steps: Count = 65_536
    max_commit_entries: CommitEntries = 4000
    read_entries: Count = 256
    read_block_s: BlockSeconds = 1.0
    model_codec: Literal["compact", "exact"] = "compact"
    kl_budget: Budget = 1e-4
    value_error_budget: Budget = 1e-5
    keyframe_ratio: KeyframeRatio = 1.0
    direct_diffs: Annotated[tuple[Versions, ...], msgspec.Meta(max_length=8)] = ()
    retain_versions: Versions = 16
    retain_model_bytes: RetainedBytes | None = None
    retain_model_s: Seconds | None = None
    stage_ttl_s: Seconds = 120.0
    forget_agents_s: ForgetSeconds = 604_800.0
    retained_bytes: RetainedBytes = 256 << 20
    max_failed_updates: Count = 3
    torch_threads: Count = 1
    promotion_margin: Margin | None = None
    promotion_min_episodes: Count = 20

    def __post_init__(self) -> None:
        """Refuse settings under which a healthy worker would lose its client.

        Raises:
            ConfigError: With the inequality in words.
        """
        if self.lease_s < RENEWALS_PER_LEASE * self.lease_renew_s:
            raise ConfigError(
                f"a lease must outlive two lost renewals: lease_s must be >= "
                f"{RENEWALS_PER_LEASE} x lease_renew_s, which is {self.lease_renew_s:g}; "
                f"not {self.lease_s:g}",
                path="lease_s",
            )
        if self.stage_ttl_s <= self.lease_s:
            raise ConfigError(
                f"what is staged must outlive the lease it is committed under: stage_ttl_s must "
                f"be > lease_s, which is {self.lease_s:g}; not {self.stage_ttl_s:g}",
                path="stage_ttl_s",
            )
