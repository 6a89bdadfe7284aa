"""The traffic-agent."""

from tunnel.grpc_engine import choose

choose()
