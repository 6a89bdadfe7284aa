"""The commands against a real daemon whose host only remembers, and the promises of every command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cli import handler, kubeconfig
from cli.main import run

HOST = json.dumps({"subnets": ["10.96.0.0/12"], "domains": ["svc", "cluster.local"], "dns": True})


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a daemon or kubeconfig of the machine."""
    monkeypatch.setenv("TPD_SOCKET", str(tmp_path / "tpd.sock"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("EXAMPLE_HOST", HOST)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[int]:
    command = [sys.executable, "-I", "-m", "tpd.supervisor.tests.memory_daemon", str(tmp_path / "tpd.sock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stdout.close()


class Result:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def tpctl(capfd: pytest.CaptureFixture[str]) -> object:
    def go(*arguments: str) -> Result:
        status = run(list(arguments))
        printed = capfd.readouterr()
        return Result(status, printed.out, printed.err)

    return go


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys; sys.argv=['tpctl','--help']\nfrom cli.main import run\nrun(['--help'])\n"
        "heavy={'rich','google','grpc','kubernetes','aiohttp','yaml','asyncio','cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    best = 9.0
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
        best = min(best, time.monotonic() - began)
        assert done.returncode == 0, done.stderr
        for command in ("connect", "status", "list", "replace", "leave", "quit", "version", "helm", "daemon"):
            assert f"  {command} " in done.stdout
    assert best < 0.25 * 4, "four times the promise: the machine may be busy"


@pytest.mark.parametrize("words", [["list"], ["replace", "echo"], ["leave", "echo"]])
def test_without_a_daemon(tpctl: object, words: list[str]) -> None:
    result = call(tpctl, *words)
    assert (result.status, result.out) == (1, "")
    assert result.err == "tpctl: error: not connected (tpd is not running); run: tpctl connect\n"
    result = call(tpctl, *words, "--output", "json")
    assert result.status == 1
    assert json.loads(result.out) == {"error": "not connected (tpd is not running); run: tpctl connect"}
    assert result.err == ""


def call(tpctl: object, *words: str) -> Result:
    assert callable(tpctl)
    result = tpctl(*words)
    assert isinstance(result, Result)
    return result


def test_status_version_and_quit_need_no_daemon(tpctl: object) -> None:
    assert "not running" in call(tpctl, "status").out
    assert json.loads(call(tpctl, "-o", "json", "status").out)["running"] is False
    assert yaml.safe_load(call(tpctl, "version", "-o", "yaml").out)["daemon"] == ""
    assert call(tpctl, "quit", "-s").status == 0
    assert call(tpctl, "daemon", "stop").status == 0
    assert call(tpctl, "daemon", "logs").out == "There are no logs yet\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nonsense"], "no such command"),
        (["leave"], "missing argument"),
        (["status", "--bogus"], "no such option"),
        (["status", "--output", "xml"], "xml"),
        (["replace", "x", "--port", "0"], "a port is a number from 1 to 65535"),
        (["replace", "x", "-p", "80", "-p", "81:80"], "mapped twice"),
        (["replace", "x", "-p", "80", "--no-ports"], "contradict"),
        (["replace", "x", "--env-file", "/no/such/folder/e"], "no such file or directory"),
        (["replace", "x", "--env-json", "/"], "cannot write /: is a directory"),
        (
            ["replace", "x", "ls", "/"],
            "'ls' is one word too many for tpctl replace; a command of your own comes after --",
        ),
        (["connect", "demo"], "'demo' is one word too many for tpctl connect"),
        (["connect", "demo", "--", "ls"], "'demo' is one word too many"),
        (["helm", "uninstall", "--wrong"], "see: tpctl helm uninstall --help"),
    ],
)
def test_wrong_words_are_one_sentence(tpctl: object, words: list[str], sentence: str) -> None:
    result = call(tpctl, *words)
    assert (result.status, result.out) == (1, "")
    assert sentence in result.err
    assert result.err.count("\n") == 1
    as_json = call(tpctl, "--output=json", *words) if "xml" not in words else None
    if as_json is not None:
        assert sentence in json.loads(as_json.out)["error"]


def test_a_day(tpctl: object, daemon: int, tmp_path: Path) -> None:
    result = call(tpctl, "connect", "-n", "demo")
    assert result.out == "Connected to context example, namespace demo (https://example.invalid)\n"
    assert call(tpctl, "connect", "-n", "demo").out.startswith("Already connected")
    assert "run: tpctl quit" in call(tpctl, "connect", "-n", "other").err
    assert json.loads(call(tpctl, "status", "-o", "json").out)["connections"][0]["state"] == "connected"
    assert "deployment/echo" in call(tpctl, "list").out
    assert call(tpctl, "list", "-q").out == ""
    file = tmp_path / "env.json"
    assert call(tpctl, "replace", "echo", "--env-json", str(file)).status == 0
    assert json.loads(file.read_text())["isolated"] == "1"
    assert file.stat().st_mode & 0o777 == 0o600
    assert call(tpctl, "replace", "echo", "--", "sh", "-c", 'test "$isolated" = 1 && exit 7').status == 7
    result = call(tpctl, "replace", "echo", "--env-file", str(tmp_path / "e"))
    assert (result.status, "several lines" in result.err) == (1, True)  # the example's answer has such a value
    assert not (tmp_path / "e").exists()
    assert call(tpctl, "leave", "echo").status == 0
    assert "the session worker ended: about to die" in call(tpctl, "replace", "die").err
    assert "Disconnected" not in call(tpctl, "status").out
    assert call(tpctl, "quit").status == 0
    assert "Not connected" in call(tpctl, "status").out


def test_a_command_while_connected(tpctl: object, daemon: int) -> None:
    result = call(tpctl, "connect", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.status, result.out) == (3, "out\n")
    assert "Not connected" in call(tpctl, "status").out
    assert call(tpctl, "connect", "--", "sh", "-c", "kill -TERM $$").status == 128 + signal.SIGTERM
    result = call(tpctl, "connect", "--", "/no/such/command")
    assert (result.status, result.err.endswith("/no/such/command: command not found\n")) == (1, True)
    assert "Not connected" in call(tpctl, "status").out
    call(tpctl, "connect")
    assert call(tpctl, "connect", "--", "true").status == 0
    assert "connected" in call(tpctl, "status").out  # it was there before, so it stays


def test_the_commands_status_counts_though_the_connection_is_gone(tpctl: object, daemon: int) -> None:
    quitting = f"{sys.executable} -m cli.main quit -q; exit 3"
    for command in (quitting, f"kill -9 {daemon}; exit 3"):
        result = call(tpctl, "connect", "--", "sh", "-c", command)
        assert (result.status, result.out) == (3, "")
        assert result.err.splitlines()[-1] == "tpctl: example-default was disconnected meanwhile"


def test_a_command_ends_with_a_tpd_that_is_gone(
    tpctl: object, daemon: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(handler, "LOOK_EVERY", 0.1)
    call(tpctl, "connect")
    done = tmp_path / "done"
    command = f"trap 'touch {done}; exit 0' TERM; kill -9 {daemon}; sleep 30 & wait"
    result = call(tpctl, "replace", "echo", "--", "sh", "-c", command)
    assert result.status == 1
    assert result.err.endswith("tpctl: error: tpd has ended, and with it this connection; run: tpctl connect\n")
    assert done.exists()


def test_from_a_folder_that_is_gone(
    tpctl: object, daemon: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = call(tpctl, "connect", "--kubeconfig", "k")
    assert "the current folder is gone, so k means nothing" in result.err
    assert "cannot write e: no such file" in call(tpctl, "replace", "echo", "-e", "e").err
    assert call(tpctl, "connect").out.startswith("Connected")


def test_from_a_folder_whose_name_is_no_text(
    tpctl: object, daemon: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(strange)
    monkeypatch.chdir(strange)
    for words in (["connect", "--kubeconfig", "k"], ["replace", "\udcff"]):
        result = call(tpctl, *words)
        assert (result.status, result.err.count("\n")) == (1, 1)
        assert "is not UTF-8 text" in result.err
    assert call(tpctl, "connect").out.startswith("Connected")


def test_logs_that_may_not_be_read_hide_no_others(
    tpctl: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tpd.log").mkdir()  # root could read a file
    own = tmp_path / "state" / "tpctl" / "tp0.log"
    own.parent.mkdir(parents=True)
    own.write_text("mine\n")
    result = call(tpctl, "daemon", "logs")
    assert (result.status, "mine" in result.out) == (0, True)
    assert "daemon logs" in result.err


def test_progress_is_plain_lines_on_standard_error_and_only_when_it_takes_time(tpctl: object, daemon: int) -> None:
    call(tpctl, "connect")
    command = [sys.executable, "-m", "cli.main", "replace", "hang"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "tpctl: hanging\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (1, "", "tpctl: error: interrupted\n")


def test_a_daemon_that_is_killed_in_the_middle(tpctl: object, daemon: int) -> None:
    call(tpctl, "connect")
    process = subprocess.Popen([sys.executable, "-m", "cli.main", "replace", "hang"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    process.stderr.readline()
    os.kill(daemon, signal.SIGKILL)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert err == "tpctl: error: tpd ended in the middle of the command; look at: tpctl daemon logs\n"


def test_contexts_are_completed_from_the_kubeconfig(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("contexts: [{name: kind}, {name: 5}, 7]\n")
    two.write_text("contexts: [{name: prod}, {name: kind}]\n")
    environment = {"KUBECONFIG": f"{one}:{tmp_path / 'none'}:{two}"}
    assert kubeconfig.contexts(environment) == ["kind", "prod"]
    one.write_text("{not yaml")
    assert kubeconfig.contexts(environment) == ["prod", "kind"]


def complete(*words: str) -> list[str]:
    """What bash is offered behind the last word."""
    environment = {**os.environ, "_TPCTL_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": " ".join(["tpctl", *words]), "COMP_CWORD": str(len(words))}
    command = [str(Path(sys.executable).with_name("tpctl"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_names_are_completed(tpctl: object, daemon: int, tmp_path: Path) -> None:
    config, other = tmp_path / "kubeconfig", tmp_path / "other"
    config.write_text("contexts: [{name: kind}, {name: prod}]\n")
    other.write_text("contexts: [{name: kilo}]\n")
    assert complete("connect", "--context", "k") == ["kind"]
    assert complete("connect", "--kubeconfig", str(other), "--context", "k") == ["kilo"]
    assert complete("connect", "--namespace", "k") == []  # there is no such cluster
    assert complete("replace", "") == []  # not connected
    call(tpctl, "connect", "-n", "demo")
    assert complete("replace", "e") == ["echo"]
    assert complete("replace", "echo", "--container", "") == ["app", "side"]
    assert complete("status", "--use", "") == ["example-demo"]
    assert complete("leave", "") == []
    call(tpctl, "replace", "worker")
    assert complete("leave", "") == ["worker"]


@pytest.mark.parametrize("impatient", [False, True])
def test_a_ctrl_c_while_the_container_is_given_back(tpctl: object, daemon: int, impatient: bool) -> None:
    call(tpctl, "connect")
    command = [sys.executable, "-m", "cli.main", "replace", "late", "--", "sh", "-c", "echo begun; exec sleep 60"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Replaced container app")
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr.readline() == "tpctl: leaving\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "tpctl: giving back deployment/late, container app; one moment\n"
    if impatient:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[1] == "tpctl: error: interrupted\n"
    assert "deployment/echo" in call(tpctl, "list").out
    if not impatient:
        assert "Left container app of deployment/late" in process.communicate(timeout=10)[1]
    assert process.returncode == (1 if impatient else 128 + signal.SIGINT)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    command = [str(Path(sys.executable).with_name("tpctl"))]
    environment = {**os.environ, "_TPCTL_COMPLETE": f"source_{shell}"}
    script = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True).stdout
    assert "_TPCTL_COMPLETE=complete_" in script
    environment |= {"_TPCTL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "tpctl re"}
    environment |= {"COMP_WORDS": "tpctl re", "COMP_CWORD": "1", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    words = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False).stdout
    assert "replace" in words


@pytest.mark.parametrize(
    ("sudo", "sentence"), [(None, "sudo tpctl daemon start"), ("exit 1", "sudo tpctl daemon start")]
)
def test_without_root_and_sudo(
    tpctl: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sudo: str | None, sentence: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    if sudo is not None:
        script = tmp_path / "sudo"
        script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "sudo: a password is required" >&2\n{sudo}\n')
        script.chmod(0o755)
    result = call(tpctl, "connect")
    assert (result.status, result.out) == (1, "")
    assert sentence in result.err
    if sudo is not None:
        asked = (tmp_path / "asked").read_text()
        assert asked.removeprefix("-n ").startswith(
            f"-- {sys.executable} -I -m tpd.supervisor.main --socket {tmp_path}/tpd.sock "
        )
    journal = tmp_path / "state" / "journal"
    journal.mkdir(parents=True)
    (journal / "tp0.jsonl").touch()
    result = call(tpctl, "list")
    assert result.status == 1
    assert "run: sudo tpctl status" in result.err
    result = call(tpctl, "version")
    assert result.status == 0
    assert "run: sudo tpctl status" in result.err
