"""docs/adding-an-algorithm.md: what it shows is the distribution that the tests train."""

import dataclasses
import re
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import get_args

from rl4sys_stream.config import AlgorithmDefinition
from rl4sys_stream.config.algorithms import ENTRY_POINT_GROUP
from rl4sys_stream.policy.extras import HeadName

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-an-algorithm.md").read_text(encoding="utf-8")
DISTRIBUTION = ROOT / "tests" / "third_party"


def block(language: str) -> str:
    """The page's code in `language`."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


def test_the_definition_of_the_page_is_the_one_that_is_tested() -> None:
    """Word for word."""
    definition = DISTRIBUTION / "tally" / "definition.py"
    assert block("python") == definition.read_text(encoding="utf-8")


def test_the_entry_point_of_the_page_is_the_one_that_is_tested() -> None:
    """An installer turns one form into the other."""
    installed = ConfigParser()
    installed.optionxform = str  # type: ignore[assignment, method-assign]
    installed.read(DISTRIBUTION / "tally-1.0.dist-info" / "entry_points.txt", encoding="utf-8")
    declared = tomllib.loads(block("toml"))["project"]["entry-points"]
    assert declared == {ENTRY_POINT_GROUP: dict(installed[ENTRY_POINT_GROUP])}


def test_every_field_and_every_head_is_on_the_page() -> None:
    """In its tables."""
    fields = {field.name for field in dataclasses.fields(AlgorithmDefinition)}
    assert fields == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert set(get_args(HeadName)) == set(re.findall(r'^\| `"(\w+)"` \|', PAGE, re.MULTILINE))
