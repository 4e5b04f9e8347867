"""From integers to bytes and back, exactly."""
