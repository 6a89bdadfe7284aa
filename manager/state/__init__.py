"""What the traffic-manager knows and decides, as pure functions and values."""
