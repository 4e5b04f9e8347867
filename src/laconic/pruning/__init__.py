"""Choosing which weights stay: criterion × unit × scope × budget."""
