"""The decision path: from what the application gives to an action. No lock, no system call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.agent.handles import ActionHandle, Episode
from rl4sys_stream.agent.inputs import as_action, as_mask, as_prior
from rl4sys_stream.agent.runtime import Tally
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.policy.policy import UniformPolicy
from rl4sys_stream.spaces import Observation, Space, make_flattener
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import FALLBACK_TOKEN

__all__ = ["Decider", "Fallback", "Question"]

Fallback = Callable[[Any, Any], object]
"""The application's own decision: (observation, mask) as the agent was given them -> action, an
element of the action space."""


class Question(NamedTuple):
    """What an action is to be chosen on, checked. A tuple, since a frozen class costs a µs here.

    Attributes:
        observation: `float32 [obs_dim]`, flattened, a copy.
        allowed: `bool [choices]`, a copy, or None.
        prior: `float32 [choices]`, a copy, or None.
        obs: The observation as it was given.
        mask: The mask as it was given.
        asked_at: Monotonic seconds; 0 where there is no deadline.
    """

    observation: NDArray[np.float32]
    allowed: NDArray[np.bool_] | None
    prior: NDArray[np.float32] | None
    obs: Observation | None
    mask: ArrayLike | None
    asked_at: float


class Decider:
    """Answers for one agent id with whatever acts at the moment: a model, the fallback, chance.

    Any number of threads may call it; it changes nothing but the tally.
    """

    def __init__(
        self,
        slot: PolicySlot,
        tally: Tally,
        *,
        observation_space: Space,
        actions: ActionFormat,
        no_prior: str,
        fallback: Fallback | None,
        deadline_s: float | None,
        now: Callable[[], float],
        uniform: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            slot: Holds the policy that acts.
            tally: Counts decisions.
            observation_space: What the application observes.
            actions: What an action is.
            no_prior: Why decisions take no prior; "" if they do.
            fallback: Decides until the first model arrives; None: chance does.
            deadline_s: It also decides where a model took longer; None: it does not.
            now: Monotonic seconds.
            uniform: Draws a number from [0, 1).
        """
        self._slot = slot
        self._tally = tally
        self._flatten = make_flattener(observation_space)
        self._actions = actions
        # One integer is applied as it is drawn: a call less on the decision path.
        self._applied = None if actions.single else actions.applied
        self._no_prior = no_prior
        self._fallback = fallback
        self._deadline_s = deadline_s
        self._now = now
        self._uniform = uniform

    def ask(
        self, obs: Observation | None, mask: ArrayLike | None, prior: ArrayLike | None
    ) -> Question:
        """The question that these inputs are.

        Raises:
            ObservationError: If the observation has the wrong shape, or is not finite.
            MaskError: If the mask has the wrong shape, or forbids everything.
            PriorError: If the prior has the wrong shape, is not finite, or the client takes none.
        """
        asked_at = 0.0 if self._deadline_s is None else self._now()
        observation = self._flatten(obs)  # type: ignore[arg-type]
        allowed = None if mask is None else as_mask(mask, self._actions)
        logits = None
        if prior is not None:
            logits = as_prior(prior, self._actions.choices, self._no_prior)
        return Question(observation, allowed, logits, obs, mask, asked_at)

    def decide(self, question: Question, episode: Episode) -> ActionHandle:
        """An action for `episode`: drawn from the policy, or the fallback's if that took too long.

        Raises:
            UsageError: If the fallback decides for no allowed action.
        """
        action = self.draw(question, episode)
        if self._deadline_s is None or not action.version:
            return action
        if self._now() - question.asked_at <= self._deadline_s:
            return action
        self._tally.late_decisions += 1
        return self._act_without_model(question, episode)

    def draw(self, question: Question, episode: Episode | None) -> ActionHandle:
        """An action drawn from the policy, whenever it comes; `episode` is None for evaluation.

        Raises:
            UsageError: If the fallback decides for no allowed action.
        """
        policy = self._slot.policy
        self._tally.decisions += 1
        if not policy.version:
            self._tally.fallback_decisions += 1
            return self._act_without_model(question, episode)
        observation, allowed, prior, _, _, _ = question
        raw, log_prob = policy.act(observation, allowed, self._uniform, prior)
        return ActionHandle(
            raw if self._applied is None else self._applied(raw),
            raw,
            log_prob,
            policy.version,
            policy.token,
            observation,
            allowed,
            episode,
            prior,
        )

    def choose(self, question: Question) -> ActionHandle:
        """The most probable action, for evaluation; before the first model, as `draw` does.

        Raises:
            UsageError: See `draw`.
        """
        policy = self._slot.policy
        self._tally.decisions += 1
        if not policy.version:
            self._tally.fallback_decisions += 1
            return self._act_without_model(question, None)
        observation, allowed, prior, _, _, _ = question
        raw, log_prob = policy.greedy(observation, allowed, prior)
        return ActionHandle(
            self._actions.applied(raw),
            raw,
            log_prob,
            policy.version,
            policy.token,
            observation,
            allowed,
            None,
            prior,
        )

    def _act_without_model(self, question: Question, episode: Episode | None) -> ActionHandle:
        observation, allowed, prior, obs, mask, _ = question
        if self._fallback is None or obs is None:
            chance = UniformPolicy(self._actions)
            raw, log_prob = chance.act(observation, allowed, self._uniform, prior)
            token = ""
        else:
            raw = as_action(self._fallback(obs, mask), self._actions, allowed)
            # As far as anyone can tell it always decides like this; the token says it is a guess.
            log_prob, token = 0.0, FALLBACK_TOKEN
        return ActionHandle(
            self._actions.applied(raw),
            raw,
            log_prob,
            0,
            token,
            observation,
            allowed,
            episode,
            prior,
        )
