"""What counts as evidence, which version it promotes, and when a learner waits."""

from dataclasses import replace

import pytest

from rl4sys_stream.broker.control import Control, Promotion, Rule, Selection
from rl4sys_stream.broker.head import Head, ManifestEntry
from rl4sys_stream.config import WorkerSettings
from rl4sys_stream.wire.format import End
from rl4sys_stream.worker.gate import Evidence, PromotionGate, judge
from rl4sys_stream.worker.obedience import find_pause
from tests.unit.worker.entries import trajectory

GATE = PromotionGate(margin=1.0, min_episodes=2)
HEAD = Head(4, "1:a", "line", "", "", tuple(ManifestEntry(v, "1:a", 0, 1) for v in (1, 2, 3, 4)))


def shown(**returns: list[float]) -> Evidence:
    """Evidence of episodes of one step; `v3=[1.0]` is one of version 3."""
    evidence, episode = Evidence(), 0
    for name, values in returns.items():
        for value in values:
            episode += 1
            behavior = ((int(name[1:]), "1:a"),)
            one = trajectory(1, behavior=behavior, episode=episode, reward=value)
            evidence.witness("agent", one)
    return evidence


def promoted(version: int) -> Control:
    """A control with an incumbent."""
    return Control(promoted=Promotion(version=version, token="1:a"))


def test_without_a_margin_only_people_promote() -> None:
    """The default."""
    assert PromotionGate.of(WorkerSettings()) is None
    assert PromotionGate.of(WorkerSettings(promotion_margin=0.5)) == PromotionGate(0.5, 20)


@pytest.mark.parametrize(
    ("control", "evidence", "version"),
    [
        (Control(), shown(v1=[0, 0], v2=[0]), 1),
        (Control(), shown(v1=[0]), None),
        (promoted(1), shown(v1=[5, 5], v2=[4, 4]), 2),
        (promoted(1), shown(v1=[5, 5], v2=[3, 3]), None),
        (promoted(1), shown(v1=[5, 5], v2=[9, 9], v3=[4, 4], v4=[9]), 3),
        (promoted(1), shown(v1=[5], v2=[9, 9]), None),
        (promoted(3), shown(v1=[9, 9], v2=[9, 9], v3=[1, 1]), None),
        (promoted(1), shown(v1=[5, 5], v7=[9, 9]), None),
    ],
    ids=[
        "the first with enough",
        "too few",
        "within the margin",
        "beyond it",
        "the newest of several",
        "too few of the incumbent",
        "none older than it",
        "none that is not retained",
    ],
)
def test_the_newest_version_that_is_not_worse_is_promoted(
    control: Control, evidence: Evidence, version: int | None
) -> None:
    """With enough episodes of its own and of the incumbent."""
    verdict = judge(GATE, control, HEAD, evidence)
    assert (verdict.version if verdict else None) == version


def test_only_whole_episodes_that_one_version_acted_count() -> None:
    """Put together from their parts; what began before this worker looked is left out."""
    evidence, name = Evidence(), (2, "1:a")
    first = trajectory(4, end=End.CUT, behavior=(name,), episode=1, reward=1.0)
    last = replace(trajectory(3, behavior=(name,), episode=1, reward=2.0), offset=4)
    evidence.witness("a", first)
    assert evidence.episodes(name) == 0
    evidence.witness("b", last)
    assert evidence.episodes(name) == 0, "the beginning of that one was missed"
    evidence.witness("a", last)
    assert (evidence.episodes(name), evidence.mean(name)) == (1, 10.0)
    evidence.witness("a", trajectory(4, behavior=(name, (3, "1:a")), episode=2))
    assert evidence.episodes(name) == 1
    assert evidence.episodes((3, "1:a")) == 0


def pin(version: int, agents: Selection | None = None) -> Rule:
    """A rule."""
    return Rule(rule_id="r", action="pin", agents=agents or Selection(), version=version)


@pytest.mark.parametrize(
    ("control", "agents", "paused"),
    [
        (Control(), ["a"], False),
        (Control(rules=(pin(2),)), ["a"], False),
        (Control(rules=(pin(1),)), ["a", "b"], True),
        (Control(rules=(pin(1),)), [], False),
        (Control(rules=(pin(1, Selection("a")), pin(2, Selection("b")))), ["a", "b"], False),
        (Control(rules=(pin(1, Selection("a")),)), ["a", "b"], False),
        (promoted(1), ["a"], True),
        (replace(promoted(1), rules=(pin(0, Selection("b")),)), ["a", "b"], False),
        (Control(rules=(Rule(rule_id="s", action="fallback"), pin(1))), ["a"], False),
        (
            Control(rules=(Rule(rule_id="s", action="fallback", agents=Selection("b")), pin(1))),
            ["a", "b"],
            True,
        ),
    ],
    ids=[
        "nobody is held",
        "the limit is not reached",
        "all are held beyond it",
        "nobody runs",
        "one is held within it",
        "one follows the head",
        "all at the promoted version",
        "a canary follows the head",
        "all are stopped",
        "the others are stopped",
    ],
)
def test_the_learner_waits_if_all_that_comes_in_would_be_too_old(
    control: Control, agents: list[str], paused: bool
) -> None:
    """At version 4, with a limit of 3: version 5 would be 4 ahead of version 1."""
    assert (find_pause(control, agents, HEAD, 3) is not None) == paused
