"""The manager's gRPC ports: sessions (mutual TLS) and agents (TLS and a token)."""
