"""What the worker reads from and writes to the Kubernetes API."""
