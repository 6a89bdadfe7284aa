"""Carriers: byte streams to one port of one pod through the API server, and the gRPC channels that run over them."""
