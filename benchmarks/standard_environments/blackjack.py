"""Blackjack by Gymnasium's rules: what a policy earns in the mean, and the best one.

An infinite deck, so cards are independent. The player hits (1) or sticks (0); the dealer draws up
to 17. `sab`: Sutton & Barto's rules (Reinforcement Learning, 2nd edition, example 5.1), a natural
wins unless the dealer has one, too; else `natural`: a natural that wins pays 1.5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from rl4sys_stream.gymnasium.environments import Environment

__all__ = ["Blackjack", "BlackjackPolicy", "Seen"]

Seen = tuple[int, int, int]
"""The player's sum, the dealer's open card, and whether the player has a usable ace."""

BlackjackPolicy = Callable[[Seen], int]

_CARDS = tuple((card, (4 if card == 10 else 1) / 13) for card in range(1, 11))
_LIMIT = 21
_DEALER_STANDS = 17


@dataclass(frozen=True, slots=True)
class _Hand:
    """As much of a hand as the rules look at; an ace is the card 1."""

    low: int = 0
    """Its sum, every ace as 1."""
    ace: bool = False
    cards: int = 0

    def with_card(self, card: int) -> "_Hand":
        return _Hand(self.low + card, self.ace or card == 1, self.cards + 1)

    @property
    def usable(self) -> bool:
        return self.ace and self.low + 10 <= _LIMIT

    @property
    def sum(self) -> int:
        return self.low + 10 * self.usable

    @property
    def natural(self) -> bool:
        return self.cards == 2 and self.sum == _LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackjack:
    """The game under one set of rules: the keyword arguments of Gymnasium's environment."""

    sab: bool
    natural: bool

    @classmethod
    def of(cls, env: Environment) -> Self:
        """The game that `env` plays."""
        game: Any = env.unwrapped
        return cls(sab=game.sab, natural=game.natural)

    def optimum(self) -> float:
        """The highest expected reward of a hand."""
        return self._value(None)

    def value_of(self, policy: BlackjackPolicy) -> float:
        """The expected reward of a hand that is played by `policy`."""
        return self._value(policy)

    def _value(self, policy: BlackjackPolicy | None) -> float:
        @cache
        def worth(hand: _Hand, shown: int) -> float:
            """Expected reward of a hand that is not over, against an open card."""
            if hand.low > _LIMIT:
                return -1.0
            if policy is None:
                return max(self._stick(hand, shown), hit(hand, shown))
            hits = policy((hand.sum, shown, int(hand.usable)))
            return hit(hand, shown) if hits else self._stick(hand, shown)

        def hit(hand: _Hand, shown: int) -> float:
            return sum(chance * worth(hand.with_card(card), shown) for card, chance in _CARDS)

        return sum(
            chance * first_chance * second_chance * worth(hand.with_card(second), shown)
            for shown, chance in _CARDS
            for hand, first_chance in ((_Hand().with_card(card), share) for card, share in _CARDS)
            for second, second_chance in _CARDS
        )

    def _stick(self, hand: _Hand, shown: int) -> float:
        return sum(
            chance * self._reward(hand, dealer)
            for dealer, chance in _dealers(_Hand().with_card(shown)).items()
        )

    def _reward(self, hand: _Hand, dealer: _Hand) -> float:
        theirs = dealer.sum if dealer.sum <= _LIMIT else 0
        reward = float(hand.sum > theirs) - float(hand.sum < theirs)
        if self.sab and hand.natural and not dealer.natural:
            return 1.0
        if not self.sab and self.natural and hand.natural and reward == 1.0:
            return 1.5
        return reward


@cache
def _dealers(hand: _Hand) -> dict[_Hand, float]:
    """The hands with which a dealer who has `hand` may end, and their probabilities."""
    if hand.cards > 1 and hand.sum >= _DEALER_STANDS:
        return {hand: 1.0}
    ends: dict[_Hand, float] = {}
    for card, chance in _CARDS:
        for end, share in _dealers(hand.with_card(card)).items():
            ends[end] = ends.get(end, 0.0) + chance * share
    return ends
