"""The asyncio shell around the pure rooms: carriers of links, operating-system sockets, tasks, signals, logging."""

from tunnel.grpc_engine import choose

choose()
