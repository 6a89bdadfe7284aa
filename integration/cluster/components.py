"""The programs of the node with their arguments and configuration files, in the order in which they start."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from integration.cluster import addresses as at
from integration.cluster.kubeconfig import kubeconfig, write_kubeconfig
from integration.cluster.pki import Authority, write_service_account_key
from integration.cluster.places import Places

PAUSE_IMAGE = "docker.io/tpctl/pause:1"
_ETCD = "http://127.0.0.1:2379"
_API = f"https://{at.NODE}:{at.API_PORT}"
_CONTAINERD = "/run/containerd/containerd.sock"


@dataclass(frozen=True)
class Program:
    """One program of the node; its log is called `name`."""

    name: str
    argv: list[str]


Recipe = Callable[[Path, Places], Program]
"""Writes a program's configuration files; takes the directory of the binaries."""


def write_certificates(places: Places) -> Authority:
    """Everything below `places.pki`, and the kubeconfigs of the node's own programs."""
    places.pki.mkdir(parents=True)
    authority = Authority.create(places.pki)
    write_service_account_key(places.pki)
    names = [*at.API_NAMES, at.API_HOST, "localhost"]
    numbers = ["127.0.0.1", at.NODE, at.KUBERNETES_SERVICE, at.API_AMONG_SERVICES]
    authority.server("kube-apiserver", [*names, *numbers]).write(places.pki, "apiserver")
    authority.client("kube-apiserver", ["system:masters"]).write(places.pki, "apiserver-kubelet")
    node = f"system:node:{at.NODE_NAME}"
    authority.server(node, [at.NODE_NAME, at.NODE], ["system:nodes"]).write(places.pki, "kubelet")
    users = {
        "kube-controller-manager": ("system:kube-controller-manager", ()),
        "kube-scheduler": ("system:kube-scheduler", ()),
        "kube-proxy": ("system:kube-proxy", ()),
        "kubelet": (node, ("system:nodes",)),
    }
    for program, (user, groups) in users.items():
        text = kubeconfig(server=_API, authority=authority.certificate, client=authority.client(user, groups))
        write_kubeconfig(_kubeconfig(places, program), text)
    return authority


def etcd(bin_: Path, places: Places) -> Program:
    return Program(
        "etcd",
        [
            f"{bin_}/etcd",
            "--data-dir=/var/lib/etcd",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # everything here is gone with the cluster anyway
            "--log-level=warn",
        ],
    )


def apiserver(bin_: Path, places: Places) -> Program:
    pki = places.pki
    return Program(
        "kube-apiserver",
        [
            f"{bin_}/kube-apiserver",
            f"--etcd-servers={_ETCD}",
            f"--advertise-address={at.NODE}",
            f"--secure-port={at.API_PORT}",
            f"--service-cluster-ip-range={at.SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--anonymous-auth=true",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",  # the node's name does not resolve
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--profiling=false",
        ],
    )


def controller_manager(bin_: Path, places: Places) -> Program:
    pki = places.pki
    return Program(
        "kube-controller-manager",
        [
            f"{bin_}/kube-controller-manager",
            f"--kubeconfig={_kubeconfig(places, 'kube-controller-manager')}",
            "--bind-address=127.0.0.1",
            f"--root-ca-file={pki}/ca.crt",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={at.PODS}",
            "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins",  # the default is made below /usr
            "--leader-elect=false",
            "--profiling=false",
        ],
    )


def scheduler(bin_: Path, places: Places) -> Program:
    return Program(
        "kube-scheduler",
        [
            f"{bin_}/kube-scheduler",
            f"--kubeconfig={_kubeconfig(places, 'kube-scheduler')}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        ],
    )


def kube_proxy(bin_: Path, places: Places) -> Program:
    config = _write_json(
        places.config / "kube-proxy.json",
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(_kubeconfig(places, "kube-proxy"))},
            "clusterCIDR": at.PODS,
            "hostnameOverride": at.NODE_NAME,
            "bindAddress": "0.0.0.0",
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # A second by default; rules that follow at once keep waiting tests short.
            "nftables": {"minSyncPeriod": "100ms"},
            # The machine's own limits of connection tracking stay as they are.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        },
    )
    return Program("kube-proxy", [f"{bin_}/kube-proxy", f"--config={config}"])


def kubelet(bin_: Path, places: Places) -> Program:
    resolver = places.config / "upstream-resolv.conf"
    resolver.write_text(f"nameserver {at.CLUSTER_UPSTREAM}\n")
    config = _write_json(
        places.config / "kubelet.json",
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{places.pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{places.pki}/kubelet.crt",
            "tlsPrivateKeyFile": f"{places.pki}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{_CONTAINERD}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": places.cgroup,
            "failSwapOn": False,
            "clusterDNS": [at.CLUSTER_DNS],
            "clusterDomain": at.CLUSTER_DOMAIN,
            "resolvConf": str(resolver),
            "podLogsDir": "/var/log/pods",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "localStorageCapacityIsolation": False,
            "maxPods": 200,
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "shutdownGracePeriod": "0s",
        },
    )
    return Program(
        "kubelet",
        [
            f"{bin_}/kubelet",
            f"--config={config}",
            f"--kubeconfig={_kubeconfig(places, 'kubelet')}",
            f"--hostname-override={at.NODE_NAME}",
            f"--node-ip={at.NODE}",
            "--root-dir=/var/lib/kubelet",
        ],
    )


def containerd(bin_: Path, places: Places) -> Program:
    cni = places.config / "cni"
    cni.mkdir(parents=True, exist_ok=True)
    # Point to point, not a bridge: pods reach one another through the node's own routing, so that
    # answers of a service pass the node's address translation whatever bridge-nf-call-iptables says.
    ptp = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": at.PODS_OF_NODE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/var/lib/cni/networks",
        },
    }
    _write_json(cni / "10-pods.conflist", {"cniVersion": "0.4.0", "name": "pods", "plugins": [ptp]})
    config = places.config / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{_CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE (in many virtual machines and containers) no score may be lowered.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{bin_}/runc"
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin_}"
    conf_dir = "{cni}"
"""
    )
    return Program("containerd", [f"{bin_}/containerd", "--config", str(config), "--log-level", "warn"])


def _kubeconfig(places: Places, program: str) -> Path:
    return places.config / f"{program}.kubeconfig"


def _write_json(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1))
    return path
