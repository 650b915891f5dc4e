"""Jobs arrive, an agent picks a machine for each; run it beside `rl4sys-stream up`."""

import heapq
import sys
import time

import numpy as np

from rl4sys_stream import ActionHandle, StreamAgent

EPISODES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
JOBS, SPEEDS = 50, (0.3, 0.6, 1.2)  # work that each machine does until the next job
agent = StreamAgent(
    client_id="quickstart",
    observation_space={"type": "box", "shape": [4]},  # the job's size, work left at each machine
    action_space={"type": "discrete", "n": 3},
    overrides={"algorithm_parameters": {"learning_rate": 1e-3, "gamma": 0.9, "n_steps": 1024}},
)
rng, times = np.random.default_rng(1), [0.0]
for episode in range(1, EPISODES + 1):
    work, traj, running = [0.0, 0.0, 0.0], None, list[tuple[float, int, ActionHandle]]()
    for job in range(1, JOBS + 1):
        traj, action = agent.request_for_action(traj, [size := rng.uniform(0.5, 3.0), *work])
        agent.add_to_trajectory(traj, action)
        work[action.action] += size
        heapq.heappush(running, (job + work[action.action] / SPEEDS[action.action], job, action))
        time.sleep(0.0005)  # until the next job; the system never waits for the learner
        work = [max(left - speed, 0.0) for left, speed in zip(work, SPEEDS, strict=True)]
        if job == JOBS:
            agent.mark_end_of_trajectory(traj)  # it is sent once the last reward is set
        while running and (running[0][0] <= job + 1 or job == JOBS):
            end, begin, earlier = heapq.heappop(running)
            earlier.update_reward(begin - end)  # long after the decision, and in another order
            times.append(end - begin)
    if episode % 50 == 0:
        print(f"episode {episode}: a job takes {np.mean(times[-2500:]):.2f}, model {agent.version}")
agent.close()
