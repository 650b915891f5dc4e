"""The commands that steer a client: over a real worker, agents and files."""

import json
import threading

import numpy as np
import pytest

from rl4sys_stream.broker.connection import BrokerAddress
from rl4sys_stream.broker.control import read_control
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import ExitCode
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.worker.loop import Worker
from tests.integration.cli.terminal import Application

pytestmark = pytest.mark.integration


class Trained:
    """A client whose worker runs for as long as it is asked to."""

    def __init__(self, url: str, client: str) -> None:
        self.url, self.client, self.keys = url, client, ClientKeys(client)
        self.application = Application(url, client)
        self.start()
        self.application.act_until(3)

    def start(self) -> None:
        """In a thread of this process."""
        self.worker = Worker(BrokerAddress.from_url(self.url), self.client, None)
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()

    def stop(self) -> None:
        """In order."""
        self.worker.stop()
        self.thread.join(timeout=20)


@pytest.fixture
def trained(redis_server, client_name):
    """A client with three versions, and a worker."""
    made = Trained(redis_server.url, client_name)
    yield made
    made.stop()
    made.application.close()


@pytest.fixture
def models(run, trained):
    """`models COMMAND … --client C`."""

    def models(*words):
        return run("models", *words, "--client", trained.client, redis_url=trained.url)

    return models


def test_a_reason_cannot_command_the_terminal_that_shows_it(models, trained, run):
    """Whoever may steer a client could else write over what somebody else's screen says."""
    models("pin", "2", "--reason", "odd\x1b[2J\rnothing\nhere")
    for shown in (
        models("history").out,
        models("rules").out,
        run("status", "--client", trained.client, redis_url=trained.url).out,
    ):
        assert r"odd\x1b[2J\rnothing\nhere" in shown


def test_who_acts_by_which_version_is_said_shown_and_taken_back(models, trained, run):
    """Pin, promote, stop, and the way back; status, rules and history tell of it."""
    pinned = models("pin", "2", "--agents", "app-*", "--reason", "3 looks odd")
    assert pinned.code == ExitCode.OK
    assert "agents app-* are pinned to version 2 (rule " in pinned.out
    assert "that concerns 0 running agents now" in pinned.out
    assert "version 1 is promoted" in models("promote", "1").out
    rows = models("list").out.splitlines()
    assert [row.split()[-1] for row in rows[1:]][1:] == ["pinned", "promoted"]
    stopped = models("stop", "--percent", "25")
    rule = read_control(trained.application.broker, trained.keys).rules[0].rule_id
    assert f"models resume {rule} --client {trained.client}" in stopped.out
    shown = run("status", "--client", trained.client, redis_url=trained.url).out
    assert "25 % of the agents are stopped" in shown
    assert "agents app-* are pinned to version 2" in shown
    assert ": 3 looks odd (0 obey)" in shown
    rules = models("rules").out
    assert "other agents act by the promoted version 1" in rules
    assert [row.split()[0] for row in rules.splitlines()[1:2]] == [rule]
    said = json.loads(models("rules", "--json").out)
    assert [one["action"] for one in said["rules"]] == ["fallback", "pin"]
    assert "no more: 25 % of the agents are stopped" in models("resume", rule).out
    assert "no more: agents app-* are pinned" in models("unpin").out
    assert "nothing was pinned" in models("unpin").out
    assert "version 1 is no more promoted" in models("promote", "head").out
    assert models("rules").out == "agents follow the newest version\n"
    history = json.loads(models("history", "--json").out)["history"]
    assert [one["what"] for one in history] == [
        "pin",
        "promote",
        "stop",
        "resume",
        "unpin",
        "demote",
    ]
    assert history[0]["reason"] == "3 looks odd"
    assert "@" in history[0]["by"]
    assert "3 looks odd" in models("history").out


@pytest.mark.parametrize(
    "words",
    [
        ("pin", "9"),
        ("promote", "9"),
        ("rollback", "9"),
        ("export", "9"),
        ("show", "9"),
        ("diff", "1", "9"),
    ],
    ids=lambda words: words[0],
)
def test_a_version_that_there_is_not_is_refused_with_those_that_there_are(models, words):
    """Whatever the command."""
    answer = models(*words)
    assert answer.code == ExitCode.NOT_FOUND
    assert answer.error.endswith("has no version 9; retained versions: 1…3")


def test_words_that_make_no_sense_are_refused(models):
    """With what is allowed."""
    assert "neither a version nor head" in models("pin", "newest").error
    assert "no pin 'ab'; there are: none" in models("unpin", "ab").error
    assert "no stop 'ab'" in models("resume", "ab").error
    assert "either VERSION or --withdraw" in models("rollback").error
    assert "0" in models("pin", "1", "--percent", "0").error


@pytest.mark.parametrize(
    ("option", "word", "why"),
    [
        ("--percent", "nan", "above 0 and up to 100 per cent, not nan"),
        ("--agents", "", "empty; leave the option out"),
        ("--agents", "host-\udcff*", "not UTF-8"),
        ("--reason", "\udcff", "not UTF-8"),
    ],
)
def test_a_word_that_would_steer_everybody_or_nobody_is_refused(models, trained, option, word, why):
    """A variable that is not set in somebody's script must not stop a whole fleet."""
    answer = models("stop", option, word)
    assert answer.code == ExitCode.USAGE
    assert why in answer.error
    assert read_control(trained.application.broker, trained.keys).rules == ()


def test_a_rollback_is_waited_for_and_told(models, trained):
    """With a worker it is done when the command ends; without one it is recorded."""
    done = models("rollback", "1", "--reason", "2 and 3 fell")
    assert done.code == ExitCode.OK
    assert done.out == f"{trained.client}: version 1 is the head again, as version 4\n"
    trained.stop()
    waiting = models("rollback", "2")
    assert waiting.code == ExitCode.FAILURE
    assert "the rollback to version 2 is recorded; no worker runs" in waiting.out
    assert f"rl4sys-stream worker --client {trained.client}" in waiting.out
    assert "rollback to version 2 is asked for by" in models("rules").out
    assert "the request was withdrawn" in models("rollback", "--withdraw").out
    assert "no request is open" in models("rollback", "--withdraw").out
    trained.start()


def test_a_rollback_that_the_worker_refuses_says_why(models, trained):
    """The checkpoint was damaged after the request had been checked."""
    broker = trained.application.broker
    token = ModelSubscriber(broker, trained.keys).read(2).token
    broker.hash_set(trained.keys.checkpoint(2, token), {"chunk0": b"x"})
    answer = models("rollback", "2")
    assert answer.code == ExitCode.FAILURE
    assert "rollback refused by worker@" in answer.err
    assert "does not match its digest" in answer.err


def test_two_versions_are_compared_tensor_by_tensor(models):
    """And their metrics side by side."""
    shown = models("diff", "1", "3").out
    rows = [line.split() for line in shown.splitlines()]
    assert rows[0][0] == "TENSOR"
    assert ["METRIC", "VERSION", "1", "VERSION", "3"] in rows
    said = json.loads(models("diff", "1", "3", "--json").out)
    whole = said["tensors"][-1]
    assert whole["name"] == "all"
    assert 0 < whole["relative"] < 1
    assert whole["cosine"] > 0.5
    same = json.loads(models("diff", "3", "3", "--json").out)["tensors"][-1]
    assert (same["largest"], same["relative"]) == (0.0, 0.0)
    assert same["cosine"] == pytest.approx(1.0)


def test_a_version_goes_to_another_client_through_a_file(models, trained, run, tmp_path):
    """Pinned there at once, although nobody trains it."""
    broker = trained.application.broker
    out = tmp_path / "twin.npz"
    assert f"{out}: version 2 of {trained.client}" in models("export", "2", "--out", str(out)).out
    live = f"{trained.client}_live"
    words = ("models", "import", str(out), "--client", live, "--pin", "--reason", "from the twin")
    answer = run(*words, redis_url=trained.url)
    assert answer.code == ExitCode.OK
    assert f"version 2 of {trained.client} (" in answer.out
    assert "is version 1 now" in answer.out
    keys = ClientKeys(live)
    ours = ModelSubscriber(broker, trained.keys).read(2).weights.flat
    assert np.array_equal(ModelSubscriber(broker, keys).read(1).weights.flat, ours)
    assert read_control(broker, keys).rules[0].version == 1
    shown = run("models", "history", "--client", live, redis_url=trained.url).out
    assert "import" in shown
    assert "from the twin" in shown


def test_a_file_that_holds_no_model_is_refused(run, redis_url, client_name, tmp_path):
    """By its ending, or by what is in it."""
    other = tmp_path / "model.txt"
    other.write_text("hello")
    words = ("models", "import", str(other), "--client", client_name)
    assert "does not end in .npz or .safetensors" in run(*words, redis_url=redis_url).error
    broken = tmp_path / "model.npz"
    broken.write_bytes(b"hello")
    words = ("models", "import", str(broken), "--client", client_name)
    answer = run(*words, redis_url=redis_url)
    assert answer.code == ExitCode.DATA
    assert "no archive of a model" in answer.error
