"""The agent that an application embeds: it acts locally, records, sends and refreshes its policy.

In come observations, masks and rewards from the application, and model versions from the model
store; out go actions at once, and finished trajectories to the client's stream in the background.
Applications call `StreamAgent`; nothing else in the package does. No torch, no gymnasium.
"""

from rl4sys_stream.agent.agent import StreamAgent
from rl4sys_stream.agent.handles import ActionHandle, TrajectoryHandle
from rl4sys_stream.agent.settlement import Settlement
from rl4sys_stream.agent.status import AgentStatus

__all__ = ["ActionHandle", "AgentStatus", "Settlement", "StreamAgent", "TrajectoryHandle"]
