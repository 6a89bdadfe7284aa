"""Replacing containers: the objects that ask for it, the links to the agents, and where their calls go."""
