"""Tests of the repository itself: import directions, purity, generated code, version, sizes."""
