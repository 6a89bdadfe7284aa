"""The one place that knows this release's version."""

VERSION = "0.1.0"
