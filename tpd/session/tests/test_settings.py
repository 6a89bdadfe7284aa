"""Resolved settings and how two connections differ."""

from __future__ import annotations

from tpd.session.settings import difference, resolve
from tunnel.proto import daemon_pb2


def test_defaults_and_differences() -> None:
    def of(**options: object) -> object:
        request = daemon_pb2.Connect(**options)  # type: ignore[arg-type]  # keywords of one test
        return resolve(request, context="kind", server="https://api", default_namespace="default")

    plain = resolve(daemon_pb2.Connect(), context="kind", server="https://api", default_namespace="default")
    assert plain.name == "kind-default"
    assert difference(plain, plain) == ""
    other = resolve(
        daemon_pb2.Connect(namespace="shop", name="kind-default"),
        context="kind",
        server="https://api",
        default_namespace="default",
    )
    assert "namespace default, not shop" in difference(plain, other)
    assert "tpctl quit" in difference(plain, other)
    assert of(mapped_namespaces=["b", "a", "b"]) == of(mapped_namespaces=["a", "b"])
