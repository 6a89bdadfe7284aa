"""The load generator: `python -m integration.bench.load KIND ...` prints one line of JSON. Standard library only."""
