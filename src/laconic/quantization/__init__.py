"""From floats to integers."""
