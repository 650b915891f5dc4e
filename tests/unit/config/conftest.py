"""Fixtures: a configuration from plain data, as a user would have it in a file."""

import json

import pytest

from rl4sys_stream.config import load_config


@pytest.fixture
def load(tmp_path):
    """Write `document` to a file and load it: `load({...}, environ={...}, client_id=...)`."""

    def load(document, *, environ=None, **arguments):
        path = tmp_path / "conf.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return load_config(path, environ=environ or {}, **arguments)

    return load
