"""The traffic-manager."""

from tunnel.grpc_engine import choose

choose()
