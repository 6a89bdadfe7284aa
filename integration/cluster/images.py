"""The images of this project and of its tests, made without Docker.

Layers, from the bottom: Debian with Python; the locked dependencies; the project's code. Only the last one is made
anew when the code changes, in about a second. `images/*.Dockerfile` are the same recipes for publishing.
"""

import hashlib
import platform
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from integration.cluster.build import binaries, install_packages
from integration.cluster.commands import run, step
from integration.cluster.locks import locked
from integration.cluster.oci import Image, Layer, LayerWriter, write_layer
from integration.cluster.places import CODE, REPOSITORY, cache_directory
from tunnel.version import VERSION

PREFIX = "docker.io/tpctl"
MANAGER = f"{PREFIX}/manager:{VERSION}"
AGENT = f"{PREFIX}/agent:{VERSION}"
TEST = f"{PREFIX}/test:{VERSION}"
PAUSE = f"{PREFIX}/pause:1"
COREDNS = f"{PREFIX}/coredns:1"

_SUITE = "bookworm"
_PYTHON = "3.11"  # Debian bookworm's
_SITE = f"usr/local/lib/python{_PYTHON}/dist-packages"
_UNNEEDED = ("doc", "man", "locale", "info", "lintian", "bash-completion", "zoneinfo", "i18n")
_ONLY_FOR_INSTALLING = (
    "usr/bin/perl* usr/share/perl* usr/lib/*/perl* usr/lib/*/libperl* var/lib/dpkg/info/* var/cache/debconf/*"
)
_GLIBC_OF_WHEELS = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17", "2_12", "2_5")
_KEPT_UNUSED = 2 * 24 * 3600
"""Seconds after which a layer that nothing used is dropped from the cache."""
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def pause() -> Image:
    """The container that holds a pod's namespaces."""

    def fill(layer: LayerWriter) -> None:
        layer.file("bin/busybox", (binaries() / "busybox").read_bytes(), mode=0o755)

    return Image(PAUSE, (make_layer(f"pause-{_build_key()}", fill),), ("/bin/busybox", "sleep", "2147483647"))


def coredns() -> Image:
    def fill(layer: LayerWriter) -> None:
        layer.file("coredns", (binaries() / "coredns").read_bytes(), mode=0o755)

    return Image(COREDNS, (make_layer(f"coredns-{_build_key()}", fill),), ("/coredns",))


def manager() -> Image:
    layers = (_base(), _dependencies("manager"), _code("manager", ("tunnel", "manager")))
    return Image(MANAGER, layers, ("python3", "-I", "-m", "manager.main"), user="1000:1000", env=_ENVIRONMENT)


def agent() -> Image:
    layers = (_base(), _dependencies("agent"), _code("agent", ("tunnel", "agent")))
    return Image(AGENT, layers, ("python3", "-I", "-m", "agent.main"), user="1000:1000", env=_ENVIRONMENT)


def test() -> Image:
    """Python, busybox (as /busybox/NAME for each of its tools) and the servers of `workloads/` as /workloads/*.py."""

    def tools(layer: LayerWriter) -> None:
        busybox = binaries() / "busybox"
        layer.file("busybox/busybox", busybox.read_bytes(), mode=0o755)
        for name in run([busybox, "--list"]).split():
            if name != "busybox":
                layer.link(f"busybox/{name}", "busybox")

    def workloads(layer: LayerWriter) -> None:
        layer.tree(CODE / "workloads", "workloads", wanted=_is_source)

    sources = _content_key([CODE / "workloads"])
    layers = (_base(), make_layer(f"tools-{_build_key()}", tools), make_layer(f"workloads-{sources}", workloads))
    environment = {**_ENVIRONMENT, "PATH": _ENVIRONMENT["PATH"] + ":/busybox", "PYTHONUNBUFFERED": "1"}
    return Image(TEST, layers, ("python3", "/workloads/echo.py"), env=environment)


RECIPES: dict[str, Callable[[], Image]] = {
    "pause": pause,
    "coredns": coredns,
    "manager": manager,
    "agent": agent,
    "test": test,
}


def make_layer(name: str, fill: Callable[[LayerWriter], None]) -> Layer:
    """The layer called `name` (which says what it is made from), from the cache when it is there."""
    folder = cache_directory() / "layers"
    path = folder / f"{name}.tar"
    if path.exists():
        path.touch()  # it is used
        return Layer.of(path)
    kind = name.rpartition("-")[0]
    with locked(f"layer-{kind}"):
        return Layer.of(path) if path.exists() else _write_layer(path, kind, fill)


def _write_layer(path: Path, kind: str, fill: Callable[[LayerWriter], None]) -> Layer:
    folder = path.parent
    unused_since = time.time() - _KEPT_UNUSED
    for old in folder.glob(f"{kind}-*.tar"):
        if old.stat().st_mtime < unused_since:
            old.unlink(missing_ok=True)
            old.with_suffix(".sha256").unlink(missing_ok=True)
    return write_layer(path, fill)


def _base() -> Layer:
    path = cache_directory() / "layers" / f"base-{_SUITE}-4.tar"
    with locked("base"):
        if not path.exists():
            _make_base(path)
    return Layer.of(path)


def _make_base(path: Path) -> None:
    install_packages()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new.tar")
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _UNNEEDED]
    with step("mmdebstrap: Debian with Python"):
        run(
            [
                *("mmdebstrap", "--variant=essential", "--include=python3,libstdc++6", *excluded),
                f'--customize-hook=cd "$1" && rm -rf {_ONLY_FOR_INSTALLING}',
                *(_SUITE, str(unfinished), *_debian_sources()),
            ],
            timeout=900,
        )
    unfinished.rename(path)


def _debian_sources() -> list[str]:
    """On a Debian of the same release the machine's own mirror, else the usual one."""
    release = Path("/etc/os-release").read_text()
    own = Path("/etc/apt/sources.list.d/debian.sources")
    return [str(own)] if f"VERSION_CODENAME={_SUITE}" in release and own.exists() else []


def _dependencies(extra: str) -> Layer:
    """The dependencies of the project and its `extra`, at the locked versions, for the image's Python."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = sorted([*project["dependencies"], *project["optional-dependencies"][extra]])
    lock = (REPOSITORY / "requirements.lock").read_text()
    key = hashlib.sha256(repr((wanted, lock, _PYTHON)).encode()).hexdigest()[:16]

    def fill(layer: LayerWriter) -> None:
        with step(f"dependencies of the {extra}"), tempfile.TemporaryDirectory() as folder:
            site = Path(folder) / "site"
            _pip_install(wanted, site)
            _compile_in_base(Path(folder), site)
            layer.tree(site, _SITE, wanted=_is_needed)

    return make_layer(f"dependencies-{extra}-{key}", fill)


def _pip_install(requirements: Sequence[str], target: Path) -> None:
    machine = platform.machine()
    platforms = [f"--platform=manylinux_{glibc}_{machine}" for glibc in _GLIBC_OF_WHEELS]
    run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--only-binary=:all:"),
            *("--implementation=cp", f"--python-version={_PYTHON}"),
            *(*platforms, f"--platform=manylinux2014_{machine}"),
            *("--target", str(target), "-c", str(REPOSITORY / "requirements.lock"), *requirements),
        ],
        timeout=900,
    )


def _compile_in_base(folder: Path, site: Path) -> None:
    """Byte-compile with the image's own interpreter: containers run unprivileged and could not keep the result."""
    root = folder / "root"
    root.mkdir()
    run(["tar", "-C", root, "--exclude=./dev/*", "-xf", _base().path], timeout=120)
    target = root / _SITE
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rmdir()  # Debian has it, empty; shutil.move would move into it
    shutil.move(site, target)
    # Files that are no valid Python for this version come with some packages; they are never imported.
    subprocess.run(
        [
            *("chroot", str(root), "python3", "-m", "compileall", "-q", "-j2"),
            *("--invalidation-mode", "unchecked-hash", f"/{_SITE}"),
        ],
        check=False,
        timeout=600,
        capture_output=True,
    )
    shutil.move(target, site)


def _code(name: str, packages: Sequence[str]) -> Layer:
    """The project's own packages, compiled too when the interpreter that runs this is of the image's version."""
    key = _content_key([REPOSITORY / package for package in packages])

    def fill(layer: LayerWriter) -> None:
        for package in packages:
            layer.tree(REPOSITORY / package, f"{_SITE}/{package}", wanted=_is_source)
            if f"{sys.version_info.major}.{sys.version_info.minor}" == _PYTHON:
                _add_compiled(layer, REPOSITORY / package, package)

    return make_layer(f"code-{name}-{key}", fill)


def _add_compiled(layer: LayerWriter, source: Path, package: str) -> None:
    tag = f"cpython-{_PYTHON.replace('.', '')}"
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "module.pyc"
        for file in sorted(source.rglob("*.py")):
            if not _is_source(file.relative_to(source)):
                continue
            inside = f"{_SITE}/{package}/{file.relative_to(source)}"
            py_compile.compile(
                str(file),
                cfile=str(compiled),
                dfile=f"/{inside}",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            parent, _, module = inside.rpartition("/")
            layer.file(f"{parent}/__pycache__/{module.removesuffix('.py')}.{tag}.pyc", compiled.read_bytes())


def _is_source(path: Path) -> bool:
    return not {"__pycache__", "tests", "testing"} & set(path.parts) and path.suffix != ".pyi"


def _is_needed(path: Path) -> bool:
    return not {"tests", "test"} & set(path.parts)


def _content_key(folders: Sequence[Path]) -> str:
    digest = hashlib.sha256(_PYTHON.encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and _is_source(path.relative_to(folder)):
                digest.update(f"{path.relative_to(folder.parent)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _build_key() -> str:
    return binaries().name
