"""A reader that was written from the document alone gives what the vectors say, too."""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.independent.acting import Actor, directive, flatten
from tests.conformance.independent.entries import read_entry
from tests.conformance.independent.frames import (
    Model,
    apply_diff,
    follow_notice,
    model_of,
    read_snapshot,
)
from tests.conformance.independent.refusal import RefusedError
from tests.conformance.loading import blob, each, entry_of, flat_of, same_bits


def outcome(read: Callable[[], object], refused: str) -> None:
    """Call `read`, which must refuse by that name."""
    with pytest.raises(RefusedError) as caught:
        read()
    assert caught.value.name == refused, caught.value


def assert_model(found: Model, expected: dict[str, Any]) -> None:
    """Layout and bits."""
    assert f"{found.layout_digest:016x}" == expected["layout_digest"]
    assert same_bits(found.flat, flat_of(expected))


@each("trajectories.json")
def test_entries(vector):
    """Every value of those that decode."""
    fields = entry_of(vector)
    if "refused" in vector:
        outcome(lambda: read_entry(fields, vector["spec"], vector["limits"]), vector["refused"])
        return
    found = read_entry(fields, vector["spec"], vector["limits"])
    assert json.dumps(found, sort_keys=True) == json.dumps(vector["decodes"], sort_keys=True)


@each("snapshots.json")
def test_snapshots(vector):
    """Every bit of those that decode."""
    frame, limit = blob(vector["frame"]), vector["max_parameters"]
    if "refused" in vector:
        outcome(lambda: read_snapshot(frame, limit), vector["refused"])
    else:
        assert_model(read_snapshot(frame, limit), vector["decodes"])


@each("diffs.json")
def test_diffs(vector):
    """Every bit of what they lead to."""
    base, frame = model_of(vector["base"]["layout"], flat_of(vector["base"])), blob(vector["frame"])
    if "refused" in vector:
        outcome(lambda: apply_diff(base, frame), vector["refused"])
    else:
        assert_model(apply_diff(base, frame), vector["decodes"])


@each("notices.json")
def test_notices(vector):
    """Followed, passed over, refused."""
    held, message = vector["held"], blob(vector["message"])
    model = model_of(held["layout"], flat_of(held))
    if "refused" in vector:
        outcome(lambda: follow_notice(message, model, held), vector["refused"])
    else:
        assert follow_notice(message, model, held) == vector.get("follows")


@each("control.json")
def test_control(vector):
    """Who is meant."""
    fields = {name: base64.b64decode(data) for name, data in vector["fields"].items()}
    if "refused" in vector:
        outcome(lambda: directive(fields, "host-a-1"), vector["refused"])
        return
    agents = vector["directives"]
    assert {agent: directive(fields, agent) for agent in agents} == agents


@each("policies.json")
def test_acting(vector):
    """Outputs, actions, log-probabilities."""

    def actor() -> Actor:
        model = model_of(vector["layout"], flat_of(vector)) if "flat" in vector else None
        return Actor(vector["spec"], model, vector.get("extras", "").encode())

    if "refused" in vector:
        outcome(actor, vector["refused"])
        return
    for case in vector["cases"]:
        assert np.allclose(actor().outputs(case["observation"]), case["outputs"], 2e-5, 2e-6)
        raw, log_prob = actor().act(case)
        assert np.allclose(raw, np.ravel(case["raw"]), 2e-5, 2e-5)
        assert math.isclose(log_prob, case["log_prob"], rel_tol=2e-5, abs_tol=2e-5)


@each("flattening.json")
def test_flattening(vector):
    """Of every kind of space."""
    assert flatten(vector["space"], vector["observation"]) == vector["flattened"]


def test_the_second_reader_is_independent():
    """Or it would repeat what the first one does."""
    for path in (Path(__file__).parent / "independent").glob("*.py"):
        assert "rl4sys_stream" not in path.read_text(encoding="utf-8"), path
