"""Observation and action spaces as plain data, so that an agent needs no Gymnasium.

In: what an application writes, its JSON form, or Gymnasium's own spaces, which are known by their
attributes and not imported. Out: frozen values that travel as JSON in the client's spec, and
observations flattened to `float32 [flat_dim]` by the agent, discrete kinds as one-hot. The module
`actions` says what actions look like to the learner, on the wire, and to the application.

`Dict` and `Tuple` stand only here, not in `rl4sys_stream` itself: imported from there, they would
be taken for those of `typing`.
"""

from rl4sys_stream.spaces.conversion import as_space
from rl4sys_stream.spaces.flattening import Flattener, Observation, flatten, make_flattener
from rl4sys_stream.spaces.json_form import space_from_json, space_to_json
from rl4sys_stream.spaces.kinds import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
    flat_dim,
    without_bounds,
)

__all__ = [
    "Box",
    "Dict",
    "Discrete",
    "Flattener",
    "MultiBinary",
    "MultiDiscrete",
    "Observation",
    "Space",
    "Tuple",
    "as_space",
    "flat_dim",
    "flatten",
    "make_flattener",
    "space_from_json",
    "space_to_json",
    "without_bounds",
]
