"""Fakes that are working simple implementations: carriers with faults on virtual time, byte streams in memory."""
