"""The queries: drawn by a seed, and held out for good."""

from itertools import islice

import pytest

from examples.pg_steer.hints import DEFAULT, HINTS
from examples.pg_steer.templates import TEMPLATES
from examples.pg_steer.workload import FileWorkload, TemplateWorkload
from rl4sys_stream.errors import ConfigError


def test_the_same_seed_asks_the_same_and_another_one_something_else():
    """A run can be repeated."""
    workload = TemplateWorkload(10)
    first, again, other = (list(islice(workload.training(seed), 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_no_training_query_is_held_out():
    """Not by its text, however few a template's gaps allow."""
    workload = TemplateWorkload(350)
    held_out = {query.sql for query in workload.held_out(350)}
    training = {query.sql for query in islice(workload.training(1), 5000)}
    assert len(held_out) > 300
    assert not held_out & training


def test_every_seed_is_judged_by_the_same_queries():
    """So that seeds can be compared."""
    assert TemplateWorkload(20).held_out(20) == TemplateWorkload(20).held_out(20)


def test_another_split_has_none_of_the_queries_that_were_looked_at():
    """What settings were chosen by cannot give the verdict."""
    first = {query.sql for query in TemplateWorkload(1000).held_out(1000)}
    verdict = TemplateWorkload(350, split="verdict")
    judged = {query.sql for query in verdict.held_out(350)}
    assert len(judged) > 300
    assert not judged & first
    assert not judged & {query.sql for query in islice(verdict.training(1), 5000)}


def test_a_template_that_is_unseen_is_asked_for_the_verdict_only():
    """Whether what was learned serves queries of a kind that was not there."""
    workload = TemplateWorkload(200, unseen=("longest_flight",))
    trained = {query.template for query in islice(workload.training(1), 500)}
    judged = {query.template for query in workload.held_out(200)}
    assert judged - trained == {"longest_flight"}


def test_an_unseen_template_that_does_not_exist_is_named_beside_those_that_do():
    """And something has to be left to learn from."""
    with pytest.raises(ConfigError, match="no template is called nonsense; there are farthest"):
        TemplateWorkload(1, unseen=("nonsense",))
    with pytest.raises(ConfigError, match="left to train on"):
        TemplateWorkload(1, unseen=tuple(template.name for template in TEMPLATES))


def test_all_ten_templates_are_asked():
    """Each as often as any other."""
    drawn = {query.template for query in islice(TemplateWorkload(0).training(3), 500)}
    assert drawn == {template.name for template in TEMPLATES}
    assert len(TEMPLATES) == 10


def test_no_gap_is_left_open():
    """Each gap of the text has values, and each value has a gap."""
    for query in islice(TemplateWorkload(0).training(4), 500):
        assert "{" not in query.sql
        assert ";" not in query.sql
    for template in TEMPLATES:
        assert all("{" + name + "}" in template.text for name in template.values)


def test_a_file_of_queries_is_split_for_good(tmp_path):
    """One statement a line; repeated ones count once."""
    path = tmp_path / "mine.sql"
    lines = [f"SELECT {number};" for number in range(40)]
    path.write_text("\n".join(["-- mine", "", *lines, *lines]))
    workload = FileWorkload(path)
    held_out = {query.sql for query in workload.held_out(100)}
    training = {query.sql for query in islice(workload.training(1), 1000)}
    assert len(held_out) == 10
    assert held_out | training == {f"SELECT {number}" for number in range(40)}
    assert not held_out & training


@pytest.mark.parametrize("text", ["", "SELECT 1\nSELECT 2"])
def test_a_file_with_too_few_queries_is_refused(tmp_path, text):
    """With the number that it has."""
    path = tmp_path / "few.sql"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"few\.sql has \d different queries"):
        FileWorkload(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    """Instead of a traceback."""
    with pytest.raises(ConfigError, match=r"none\.sql"):
        FileWorkload(tmp_path / "none.sql")


def test_the_default_comes_first_and_changes_nothing():
    """What an agent without a model chooses."""
    assert HINTS[DEFAULT].prefix == ""
    assert HINTS[4].prefix == (
        "SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off; "
    )
    assert len({hint.name for hint in HINTS}) == len({hint.disabled for hint in HINTS}) == 8
