"""Kubeconfigs whose credentials come from a program: it is the user's own, and runs as the user."""

from __future__ import annotations

import json

import pytest

from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import User

pytestmark = pytest.mark.cluster

CONFIG = "/home/dev/with-plugin"
# It says who runs it, and gives the certificate that the laptop's kubeconfig has as it is.
PLUGIN = """
import base64, getpass, json, os
print(os.getuid(), os.environ["SETTING"], file=open("/home/dev/who", "a"))
user = json.load(open("/home/dev/.kube/config"))["users"][0]["user"]
text = lambda key: base64.b64decode(user[key]).decode()
status = {
    "clientCertificateData": text("client-certificate-data"),
    "clientKeyData": text("client-key-data"),
}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


@pytest.fixture
def user(people: UserFactory) -> User:
    """Somebody whose daemon runs."""
    someone = people()
    someone.start_daemon()
    return someone


def write(user: User, *command: str) -> None:
    """Make CONFIG: the laptop's kubeconfig with this program instead of a certificate."""
    document = json.loads(user.laptop.path("/home/dev/.kube/config").read_text())
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "interactiveMode": "Never",
        "command": command[0],
        "args": list(command[1:]),
        "env": [{"name": "SETTING", "value": "set"}],
    }
    document["users"][0]["user"] = {"exec": plugin}
    user.laptop.write_kubeconfig(json.dumps(document), path=CONFIG)


@pytest.mark.usefixtures("local_cluster")
def test_a_credential_plugin_runs_as_the_user(user: User, demo: str) -> None:
    write(user, "python3", "-c", PLUGIN)
    user.tpctl("connect", "-n", demo, "--kubeconfig", CONFIG)
    assert user.json("status")["connections"][0]["connection"]["user"] == "admin"
    user.curl("http://echo/")
    user.tpctl("quit")
    uid = user.ok("id", "-u").strip()
    assert set(user.laptop.path("/home/dev/who").read_text().splitlines()) == {f"{uid} set"}


def test_what_a_credential_plugin_says_is_in_the_error(user: User) -> None:
    write(user, "sh", "-c", "echo run: example login >&2; exit 1")
    assert "it ended with status 1 (run: example login)" in user.refused("connect", "--kubeconfig", CONFIG)
