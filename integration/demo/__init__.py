"""The main job shown on a real cluster: `make demo`."""
