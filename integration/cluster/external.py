"""Any other cluster (kind, minikube, a real one), reached with a kubeconfig, for the same tests.

Laptops are rooms here too. Their lan has the resolvers and, where the local cluster has its API server, a line to the
given one. Images are not loaded: the cluster must be able to pull them under the given prefix.
"""

import base64
import json
import os
import secrets
import shutil
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integration.cluster import addresses as at
from integration.cluster.build import binaries
from integration.cluster.cluster import Cluster, create_node, write_state
from integration.cluster.commands import run, wait_for
from integration.cluster.errors import ClusterError
from integration.cluster.kubeconfig import kubeconfig, write_kubeconfig
from integration.cluster.lan_programs import line_program
from integration.cluster.oci import Image
from integration.cluster.pki import Pair
from integration.cluster.places import Places
from tunnel.version import VERSION


class ExternalCluster(Cluster):
    """A cluster that is not ours, and a lan of ours whose laptops reach its API server."""

    @classmethod
    def attach(cls, *, config: Path | None, context: str | None, image_prefix: str) -> Self:
        """Use the cluster of `context` in the kubeconfig `config` (both by default kubectl's own choice)."""
        given = _flattened(cls.kubectl_program(), config, context)
        places = Places(f"external-{os.getpid()}")
        node = create_node(places, [])
        cluster = cls(places, node, 0)
        cluster._image_prefix = image_prefix
        cluster._given = given
        try:
            write_kubeconfig(cluster.admin_kubeconfig, json.dumps(given))
            cluster.kubectl("get", "--raw", "/readyz", timeout=20)
            cluster._open_line()
        except BaseException:
            cluster.down()
            raise
        write_state(places, node, api_port=0, complete=True)
        return cluster

    _image_prefix: str
    _given: dict[str, list[dict[str, dict[str, str]]]]

    def _open_line(self) -> None:
        """A line from the lan's address of the API server to the given one, which is reached from the machine."""
        given = urllib.parse.urlsplit(self.server)
        port_file = self.places.root / "line-port"
        to = f"{given.hostname}:{given.port or 443}"
        # It dies with the node and listens in it, but sees the machine's files, and so our own process.
        ours = f"/proc/{os.getpid()}/ns/net"
        words = line_program(f"{at.NODE}:{at.API_PORT}", to, enter=ours, port_file=port_file)
        self.node.start(words, log=self.places.logs / "door.log", namespaces=("--pid", "--net"))
        wait_for("the line to the API server", port_file.exists, timeout=10, every=0.01)

    @property
    def server(self) -> str:
        return self._given["clusters"][0]["cluster"]["server"]

    def kubeconfig(
        self, user: str, groups: Sequence[str] = (), *, server: str | None = None, namespace: str = "default"
    ) -> str:
        """As for the local cluster: `admin` is whoever the given kubeconfig stands for, others get a certificate
        signed by the cluster (which not every provider's does)."""
        if user == "admin":
            document = json.loads(json.dumps(self._given))
            document["contexts"][0]["context"]["namespace"] = namespace
        else:
            authority = base64.b64decode(self._given["clusters"][0]["cluster"]["certificate-authority-data"])
            client = self._signed(user, groups)
            document = json.loads(
                kubeconfig(server=self.server, authority=authority, client=client, namespace=namespace)
            )
        entry = document["clusters"][0]["cluster"]
        entry["server"] = server or f"https://{at.NODE}:{at.API_PORT}"
        entry.setdefault("tls-server-name", urllib.parse.urlsplit(self.server).hostname)
        return json.dumps(document)

    def _signed(self, user: str, groups: Sequence[str]) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).sign(key, hashes.SHA256())
        name = f"tpctl-test-{secrets.token_hex(4)}"
        manifest = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode(),
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"],
            },
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        try:
            self.kubectl("certificate", "approve", name)
            words = ("get", "csr", name, "-o", "jsonpath={.status.certificate}")
            wait_for(f"the cluster to sign the certificate of {user}", lambda: bool(self.kubectl(*words)), timeout=20)
            certificate = base64.b64decode(self.kubectl(*words))
        finally:
            self.kubectl("delete", "csr", name, "--ignore-not-found")
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(certificate, pem)

    def python(self, program: str, *arguments: str, timeout: float = 60) -> str:
        """In a pod of its own, which is gone afterwards."""
        name = f"tpctl-test-{secrets.token_hex(4)}"
        words = ("run", name, "--rm", "--attach", "--quiet", "--restart=Never", f"--image={self.image('test')}")
        return self.kubectl(*words, "--command", "--", "python3", "-ISc", program, *arguments, timeout=timeout)

    @staticmethod
    def kubectl_program() -> str:
        return shutil.which("kubectl") or str(binaries() / "kubectl")

    def laptop_tools(self) -> tuple[list[str], list[str]]:
        return [], []

    def image(self, name: str) -> str:
        return f"{self._image_prefix}/{name}:{VERSION}"

    def digest(self, name: str) -> str:
        return ""

    def refuse_another_manager(self) -> None:
        """`ClusterError` when somebody has a traffic-manager there: tests would replace it and take it away."""
        label, where = "--selector=app.kubernetes.io/name=traffic-manager", "-o=jsonpath={.items[*].metadata.namespace}"
        if found := self.kubectl("get", "deployments", "--all-namespaces", label, where).split():
            raise ClusterError(
                f"There is a traffic-manager in namespace {found[0]} of that cluster already, and the tests need one of"
                " their own: give them another cluster, or uninstall it first."
            )

    def load(self, wanted: Sequence[Image]) -> None:
        """Nothing: the cluster pulls."""

    def load_project(self) -> None:
        """Nothing: the cluster pulls."""


def _flattened(kubectl: str, config: Path | None, context: str | None) -> dict[str, list[dict[str, dict[str, str]]]]:
    """The kubeconfig reduced to one context, with every file embedded."""
    words = [kubectl, "config", "view", "--minify", "--flatten", "--raw", "-o", "json"]
    words += [f"--kubeconfig={config}"] if config else []
    words += [f"--context={context}"] if context else []
    flattened: dict[str, list[dict[str, dict[str, str]]]] = json.loads(run(words))
    if not flattened.get("clusters"):
        raise ClusterError("The kubeconfig has no such context.")
    return flattened
