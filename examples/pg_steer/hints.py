"""What the agent decides between: planner settings for one query.

Each hint set switches some of the planner's methods off, and PostgreSQL plans around them (the
approach of Marcus et al. 2021, "Bao: Making Learned Query Optimization Practical",
doi:10.1145/3448016.3452838). A hint never changes an answer, only the time that it takes.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT", "HINTS", "Hint"]


@dataclass(frozen=True, slots=True)
class Hint:
    """Planner methods that one query has to do without.

    Attributes:
        name: For tables and plots.
        disabled: Settings of PostgreSQL that are off for the query.
    """

    name: str
    disabled: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """SQL to put before a query in the same message.

        `SET LOCAL` lasts as long as the message's transaction: whatever becomes of the query, the
        connection is afterwards as it was.
        """
        return "".join(f"SET LOCAL {setting} = off; " for setting in self.disabled)


HINTS: Final = (
    Hint("default"),
    Hint("no_nestloop", ("enable_nestloop",)),
    Hint("no_hashjoin", ("enable_hashjoin",)),
    Hint("no_mergejoin", ("enable_mergejoin",)),
    Hint("hashjoin_only", ("enable_nestloop", "enable_mergejoin")),
    Hint("no_bitmapscan", ("enable_bitmapscan",)),
    Hint("no_indexscan", ("enable_indexscan", "enable_indexonlyscan")),
    Hint("no_seqscan", ("enable_seqscan",)),
)
"""The actions, by number."""
DEFAULT: Final = 0
"""What PostgreSQL does by itself."""
