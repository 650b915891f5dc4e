"""The table of targets: every decoder that meets bytes from outside of its process."""

from types import MappingProxyType
from typing import Final

from tests.fuzz.broker_targets import BROKER_TARGETS
from tests.fuzz.config_targets import CONFIG_TARGETS
from tests.fuzz.spool_targets import SPOOL_TARGETS
from tests.fuzz.target import Target
from tests.fuzz.wire_targets import WIRE_TARGETS

__all__ = ["TARGETS"]

TARGETS: Final = MappingProxyType({
    target.name: target
    for target in (*WIRE_TARGETS, *SPOOL_TARGETS, *BROKER_TARGETS, *CONFIG_TARGETS)
})  # fmt: skip
"""name -> target."""

assert len(TARGETS) == sum(  # two targets of one name would share findings
    map(len, (WIRE_TARGETS, SPOOL_TARGETS, BROKER_TARGETS, CONFIG_TARGETS))
)
Table = MappingProxyType[str, Target]
