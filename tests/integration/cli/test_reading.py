"""The commands that look, over a client that a real worker has trained for a few versions."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from rl4sys_stream.broker.connection import BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import (
    AgentHeartbeat,
    WorkerReport,
    register,
    write_heartbeat,
    write_worker_report,
)
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import ExitCode
from rl4sys_stream.spaces import Box, Dict, Discrete, MultiDiscrete
from rl4sys_stream.worker.loop import Worker
from tests.integration.cli.terminal import STEPS, Application, environment

pytestmark = pytest.mark.integration

VERSIONS = 3


@pytest.fixture(scope="module")
def trained(redis_server):
    """The name of a client with three versions and a worker that was stopped in order."""
    client = f"trained_{os.urandom(4).hex()}"
    application = Application(redis_server.url, client)
    worker = Worker(BrokerAddress.from_url(redis_server.url), client, None)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        application.act_until(VERSIONS)
    finally:
        worker.stop()
        thread.join(timeout=20)
    application.close()
    return client


@pytest.fixture
def ask(run, redis_url, trained):
    """Run a reading command against the broker; `C` in its arguments stands for the client."""

    def ask(*arguments):
        words = [trained if word == "C" else word for word in arguments]
        return run(*words, redis_url=redis_url)

    return ask


def test_status_shows_how_far_training_is(ask, trained):
    """One line a client, readable in a terminal of 80 columns for a name as long as most."""
    answer = ask("status", "--client", "C")
    assert answer.code == ExitCode.OK
    header, row, *rest = answer.out.splitlines()
    assert header.split()[:4] == ["CLIENT", "WORKER", "VERSION", "STEPS"]
    assert row.split()[:4] == [trained, "stopped", "3", str(2 * 4 * STEPS)]
    assert len(header) - len(trained) + len("lunar_lander") <= 80
    assert f"  -> rl4sys-stream dispatcher, or rl4sys-stream worker --client {trained}" in rest
    assert "  no agent is running (1 seen before)" in rest


def test_status_tells_programs_everything(ask, trained, redis_url):
    """Without the broker's password."""
    answer = ask("status", "--client", "C", "--json")
    said = json.loads(answer.out)
    client = said["clients"][0]
    assert client["version"] == VERSIONS
    assert client["worker"]["state"] == "stopped"
    assert client["backlog"]["entries"] == 0
    assert client["counts"]["trained"] == 8
    assert client["metrics"]["time/total_timesteps"] == 2 * 4 * STEPS
    assert said["dispatchers"] == []
    assert "***" in said["broker"]
    assert redis_url.partition("://:")[2].partition("@")[0] not in answer.out


def test_audit_closes_over_what_was_sent(ask):
    """Eight accepted, eight trained."""
    answer = ask("audit", "--client", "C")
    assert answer.code == ExitCode.OK
    header, row, *_ = answer.out.splitlines()
    assert header.split() == ["AGENT", "ACCEPTED", "TRAINED", "PENDING", "BALANCE"]
    assert row.split() == ["app-1", "8", "8", "0", "closes"]
    assert "steps trained: 128 of 128 accepted (100.0%)" in answer.out
    said = json.loads(ask("audit", "--client", "C", "--json").out)
    assert said["closes"]
    assert said["total"]["trained"] == 8
    assert said["total"]["quarantined"] == 0, "programs are told the zeros, too"


def test_clients_list_says_what_each_is(ask, trained):
    """Its spaces and its lineage."""
    answer = ask("clients", "list")
    row = next(line for line in answer.out.splitlines() if line.startswith(trained))
    assert "box [3]" in row
    assert "discrete 2" in row
    said = json.loads(ask("clients", "list", "--json").out)["clients"]
    mine = next(one for one in said if one["client"] == trained)
    assert mine["definition"]["algorithm_parameters"]["n_steps"] == 4 * STEPS


def test_clients_list_says_what_spaces_are_made_of(run, broker, redis_url, client_name):
    """In one column, also where a space has many parts."""
    spec = ClientSpec(
        observation_space=Dict({"load": Box((2,)), "tiers": MultiDiscrete((3, 2))}),
        action_space=Discrete(2),
    )
    register(broker, ClientKeys(client_name), spec, {}, wall_ms=1)
    answer = run("clients", "list", redis_url=redis_url)
    row = next(line for line in answer.out.splitlines() if line.startswith(client_name))
    assert "dict of 2 " in row


def test_models_list_and_show_describe_the_versions(ask):
    """Newest first; one of them in full, read and checked against its digest."""
    rows = ask("models", "list", "--client", "C").out.splitlines()
    assert [row.split()[0] for row in rows] == ["VERSION", "3", "2", "1"]
    assert max(map(len, rows)) <= 80
    shown = ask("models", "show", "--client", "C", "3").out
    assert "agents                       {'app-1': [5, 6, 7, 8]}" in shown
    assert "train/approx_kl" in shown
    assert "pi.0.weight" in shown
    listed = json.loads(ask("models", "list", "--client", "C", "--json").out)["versions"]
    told = json.loads(ask("models", "show", "--client", "C", "3", "--json").out)
    assert told["digest"] == listed[0]["digest"]
    assert told["provenance"]["trajectories"] == 4


def test_models_list_counts_steps_as_status_does(ask):
    """From the client's beginning to that version."""
    rows = [row.split() for row in ask("models", "list", "--client", "C").out.splitlines()]
    steps = rows[0].index("STEPS") - len(rows[0])
    counted = [row[steps] for row in rows[1:]]
    assert counted == [str(2 * 4 * STEPS), str(4 * STEPS), "0"]
    assert ask("status", "--client", "C").out.splitlines()[1].split()[3] == counted[0]


def test_doctor_finds_nothing_wrong(ask, trained):
    """A stopped worker and a missing dispatcher are worth a note, not a fault."""
    answer = ask("doctor")
    lines = answer.out.splitlines()
    assert f"ok    client {trained}: version 3, balance closes" in lines
    assert f"note  client {trained}: worker stopped" in lines
    assert "note  dispatcher: none is running, so nobody starts or restarts workers" in lines
    said = json.loads(ask("doctor", "--json").out)
    assert {finding["result"] for finding in said["findings"]} <= {"ok", "note", "fault"}


def test_a_reader_that_goes_away_is_not_worth_a_word(trained, redis_url):
    """`status | head -0` ends quietly, with success."""
    arguments = [sys.executable, "-m", "rl4sys_stream", "status", "--json"]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({"RL4SYS_STREAM_REDIS_URL": redis_url}),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == ExitCode.OK
    assert said == b""


def test_nothing_is_coloured_in_a_pipe(ask):
    """Nor drawn: what a program reads is plain text."""
    for command in (("status",), ("doctor",), ("models", "list", "--client", "C")):
        assert "\x1b" not in ask(*command).out


def test_a_damaged_client_is_found_by_doctor(run, redis_url):
    """Keys that somebody deleted by hand, and what helps."""
    client = f"damaged_{os.urandom(4).hex()}"
    application = Application(redis_url, client)
    broker, keys = application.broker, application.keys
    before = run("doctor", redis_url=redis_url)
    assert f"FAULT client {client}" not in before.out
    broker.unlink(keys.spec)
    after = run("doctor", redis_url=redis_url)
    assert f"FAULT client {client}: its spec is gone" in after.out
    assert after.code == ExitCode.FAILURE
    for command in ("status", "clients list"):
        seen = run(*command.split(), redis_url=redis_url)
        assert seen.code == ExitCode.OK, "the other clients are there to be seen"
        assert f"{client} is damaged" in seen.err
    assert client in json.loads(run("status", "--json", redis_url=redis_url).out)["broken"]
    assert run("status", "--client", client, redis_url=redis_url).code == ExitCode.NOT_FOUND
    broker.call("SREM", "rl4sys:clients", client)
    broker.unlink(*list(broker.scan(keys.pattern)))
    application.close()


def test_every_command_names_a_key_in_whose_place_something_else_stands(
    run, redis_url, client_name
):
    """The broker's own words do not say which one it is."""
    application = Application(redis_url, client_name)
    broker, keys = application.broker, application.keys
    broker.call("SET", keys.seq, "a note")
    named = f"{keys.seq} is a string, not a hash"
    assert f"FAULT client {client_name}: {named}" in run("doctor", redis_url=redis_url).out
    for command in ("status", "clients list"):
        seen = run(*command.split(), redis_url=redis_url)
        assert seen.code == ExitCode.OK, "the other clients are there to be seen"
        assert f"{client_name} is damaged" in seen.err
    for command in ("status --client", "audit --client", "clients reset --yes"):
        refused = run(*command.split(), client_name, redis_url=redis_url)
        assert (refused.code, named in refused.err) == (ExitCode.DATA, True)
    broker.call("SREM", "rl4sys:clients", client_name)
    broker.unlink(*list(broker.scan(keys.pattern)))
    application.close()


def test_an_open_balance_fails_the_audit(run, redis_url, client_name):
    """Two were sent for good and are nowhere: the command says so with its exit code."""
    application = Application(redis_url, client_name)
    heartbeat = AgentHeartbeat(agent_id="app-1", accepted=2, issued=2, floor=3, closed=True)
    write_heartbeat(application.broker, application.keys, heartbeat)
    answer = run("audit", "--client", client_name, redis_url=redis_url)
    assert answer.code == ExitCode.FAILURE
    assert "OPEN" in answer.out
    assert "MISSING" in answer.out.splitlines()[0]
    assert answer.err == f"error: the balance of {client_name} does not close for app-1\n"
    doctor = run("doctor", redis_url=redis_url).out
    assert f"FAULT client {client_name}: 2 trajectories are not accounted for" in doctor
    assert f"-> rl4sys-stream audit --client {client_name}" in doctor
    run("clients", "delete", client_name, "--yes", redis_url=redis_url)
    application.close()


def test_the_returns_of_an_older_lineage_are_not_shown_for_the_new_one(run, redis_url, client_name):
    """The metrics outlive a reset; a client without a version has no mean return."""
    application = Application(redis_url, client_name)
    record = b'{"version":9,"metrics":{"rollout/ep_rew_mean":123.0}}'
    application.broker.call("XADD", application.keys.metrics, "*", "m", record)
    assert "123" not in run("status", "--client", client_name, redis_url=redis_url).out
    run("clients", "delete", client_name, "--yes", redis_url=redis_url)
    application.close()


@pytest.mark.parametrize(
    ("state", "shown", "move"),
    [
        ("crash_loop", "crash_loop: given up", "mend the cause, then restart the dispatcher"),
        ("failed", "failed: given up", "mend the cause; a running dispatcher tries again"),
        ("idle", "gone", "rl4sys-stream dispatcher, or rl4sys-stream worker"),
        ("starting", "starting", ""),
    ],
)
def test_what_became_of_a_worker_is_said_with_the_next_move(
    run, redis_url, client_name, state, shown, move
):
    """By status and doctor alike, from the last report and the lease together."""
    application = Application(redis_url, client_name)
    report = WorkerReport(
        state=state, time_ms=time.time_ns() // 1_000_000, detail="given up after 5"
    )
    write_worker_report(application.broker, ClientKeys(client_name), report)
    status = run("status", "--client", client_name, redis_url=redis_url).out
    assert f"worker {shown}" in status
    assert move in status
    doctor = run("doctor", redis_url=redis_url).out
    line = next(line for line in doctor.splitlines() if f"client {client_name}: worker" in line)
    assert line.startswith("FAULT" if state in {"crash_loop", "failed"} else "note")
    assert move in doctor
    run("clients", "delete", client_name, "--yes", redis_url=redis_url)
    application.close()


def test_a_client_that_does_not_decode_can_be_deleted(run, redis_url):
    """And doctor says so: else a wrong word in the registry would stay there for good."""
    client = f"garbled_{os.urandom(4).hex()}"
    application = Application(redis_url, client)
    broker, keys = application.broker, application.keys
    broker.hash_set(keys.spec, {"spec": b'{"algorithm":'})
    seen = run("doctor", redis_url=redis_url)
    assert f"rl4sys-stream clients delete {client}" in seen.out
    answer = run("clients", "delete", client, "--yes", "--force", redis_url=redis_url)
    assert answer.code == ExitCode.OK, answer.err
    assert client not in run("clients", "list", redis_url=redis_url).out
    application.close()


def test_an_agent_that_is_refused_is_a_fault(run, redis_url, client_name):
    """It acts and sends nothing, which nobody would notice otherwise."""
    application = Application(redis_url, client_name)
    now_ms = time.time_ns() // 1_000_000
    said = AgentHeartbeat(agent_id="app-2", refused="a different action_space.n", time_ms=now_ms)
    write_heartbeat(application.broker, application.keys, said)
    seen = run("doctor", redis_url=redis_url)
    assert seen.code == ExitCode.FAILURE
    assert "agent app-2 is refused and sends nothing: a different action_space.n" in seen.out
    application.close()


def test_status_names_agents_whose_decisions_come_too_late(run, redis_url, client_name):
    """Their application is under its fallback's control, and nothing is trained on it."""
    application = Application(redis_url, client_name)
    now_ms = time.time_ns() // 1_000_000
    said = AgentHeartbeat(agent_id="app-2", decisions=40, late_decisions=7, time_ms=now_ms)
    write_heartbeat(application.broker, application.keys, said)
    seen = run("status", redis_url=redis_url)
    assert "agent app-2: 7 of 40 decisions came too late, and were its fallback's" in seen.out
    told = json.loads(run("status", "--client", client_name, "--json", redis_url=redis_url).out)
    late = {one["agent_id"]: one["late_decisions"] for one in told["clients"][0]["agents"]}
    assert late["app-2"] == 7
    application.close()
