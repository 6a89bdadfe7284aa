"""Images written by hand: reproducible layers, digests that hold, layers left out that are known."""

import hashlib
import json
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.cluster import images
from integration.cluster.oci import Image, LayerWriter, write_archive, write_layer


def content(layer: LayerWriter) -> None:
    layer.file("usr/bin/tool", b"#!/bin/sh\n", mode=0o755)
    layer.link("usr/bin/other", "tool")
    layer.file("usr/share/text", b"text")


def blobs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: file.read() for entry in archive if (file := archive.extractfile(entry))}


def test_layers_are_reproducible(tmp_path: Path) -> None:
    one, two = write_layer(tmp_path / "1.tar", content), write_layer(tmp_path / "2.tar", content)
    assert one.digest == two.digest == "sha256:" + hashlib.sha256(one.path.read_bytes()).hexdigest()
    with tarfile.open(one.path) as archive:
        modes = {entry.name: (entry.mode, entry.uid, entry.mtime) for entry in archive}
    assert modes["usr"] == (0o755, 0, 0)
    assert modes["usr/bin/tool"] == (0o755, 0, 0)
    assert modes["usr/share/text"] == (0o644, 0, 0)


def test_archive_refers_to_what_it_holds(tmp_path: Path) -> None:
    layer = write_layer(tmp_path / "layer.tar", content)
    image = Image("docker.io/tpctl/x:1", (layer,), ("/usr/bin/tool",), user="1000:1000", env={"A": "b"})
    write_archive([image], tmp_path / "image.tar")
    files = blobs(tmp_path / "image.tar")
    for name, blob in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"
    index = json.loads(files["index.json"])
    manifest = json.loads(files["blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:")])
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]] == [layer.digest]
    assert (config["config"]["User"], config["config"]["Env"]) == ("1000:1000", ["A=b"])

    write_archive([image], tmp_path / "small.tar", known=frozenset([layer.digest]))
    assert set(files) - set(blobs(tmp_path / "small.tar")) == {f"blobs/sha256/{layer.digest.removeprefix('sha256:')}"}


def test_two_builds_at_once_make_one_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPCTL_CACHE", str(tmp_path))

    def fill(layer: LayerWriter) -> None:
        time.sleep(0.05)
        layer.file("random", os.urandom(1000))

    with ThreadPoolExecutor(8) as pool:
        layers = list(pool.map(lambda _: images.make_layer("kind-key", fill), range(8)))
    assert len(set(layers)) == 1
    assert layers[0].digest == "sha256:" + hashlib.sha256(layers[0].path.read_bytes()).hexdigest()
