"""Container images as files: a layer is a tar, an image is a few JSON documents beside its layers.

Writing them ourselves takes a second where a builder takes ten, and needs no daemon.
Format: OCI image specification 1.1 (image layout, manifest, config). Layers are not compressed: they never travel.
"""

import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Layer:
    """A tar file and its SHA-256."""

    path: Path
    digest: str
    size: int

    @classmethod
    def of(cls, path: Path) -> "Layer":
        """The layer in `path`; the digest is kept beside it (a path's content never changes)."""
        known = path.with_suffix(".sha256")
        if not known.exists():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as unfinished:
                unfinished.write(digest)
            Path(unfinished.name).rename(known)
        return cls(path, "sha256:" + known.read_text(), path.stat().st_size)


@dataclass(frozen=True)
class Image:
    """What an image runs, as whom, and its layers from the bottom up. `name` is a full reference."""

    name: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    def config(self) -> bytes:
        document = {
            "architecture": _ARCHITECTURE,
            "os": "linux",
            "config": {
                "Entrypoint": list(self.entrypoint),
                "User": self.user,
                "Env": [f"{key}={value}" for key, value in self.env.items()],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in self.layers]},
            "history": [{"created_by": "tpctl"} for _ in self.layers],
        }
        return json.dumps(document).encode()

    def manifest(self) -> bytes:
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, self.config()),
            "layers": [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in self.layers],
        }
        return json.dumps(document).encode()

    def digest(self) -> str:
        return _digest(self.manifest())


def write_archive(images: Sequence[Image], path: Path, *, known: frozenset[str] = frozenset()) -> None:
    """Write an OCI image layout tar; layers whose digest is `known` to the receiver are left out."""
    manifests = []
    blobs: dict[str, bytes | Layer] = {}
    for image in images:
        manifest = image.manifest()
        blobs[_digest(manifest)] = manifest
        blobs[_digest(image.config())] = image.config()
        blobs.update({layer.digest: layer for layer in image.layers if layer.digest not in known})
        names = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name}
        manifests.append({**_descriptor(_MANIFEST, manifest), "annotations": names})
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(archive, "index.json", json.dumps(index).encode())
        for digest, blob in blobs.items():
            name = f"blobs/sha256/{digest.removeprefix('sha256:')}"
            if isinstance(blob, Layer):
                archive.add(blob.path, name)
            else:
                _add(archive, name, blob)


class LayerWriter:
    """Writes one layer with the same bytes for the same content: owner root, no times."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._directories: set[str] = set()

    def file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        self._parents(name)
        _add(self._archive, name, content, mode=mode)

    def link(self, name: str, target: str) -> None:
        self._parents(name)
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.SYMTYPE
        entry.linkname = target
        self._archive.addfile(entry)

    def directory(self, name: str, *, mode: int = 0o755) -> None:
        if name in self._directories:
            return
        self._parents(name)
        self._directories.add(name)
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.DIRTYPE
        entry.mode = mode
        self._archive.addfile(entry)

    def tree(self, source: Path, name: str, *, wanted: Callable[[Path], bool] = lambda path: True) -> None:
        """Every file below `source` whose relative path is `wanted`, as `name`/..., sorted; links are followed."""
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if path.is_file() and wanted(inside):
                mode = 0o755 if os.access(path, os.X_OK) else 0o644
                self.file(f"{name}/{inside}", path.read_bytes(), mode=mode)

    def _parents(self, name: str) -> None:
        parent = os.path.dirname(name)
        if parent:
            self.directory(parent)


def write_layer(path: Path, fill: Callable[[LayerWriter], None]) -> Layer:
    """Make the layer `path` by calling `fill`. Only once for a path: the digest beside it stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
        fill(LayerWriter(archive))
    unfinished.rename(path)
    return Layer.of(path)


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    archive.addfile(entry, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}
