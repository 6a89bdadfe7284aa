"""The manager's dealings with the API server: what it watches, and what it writes."""
