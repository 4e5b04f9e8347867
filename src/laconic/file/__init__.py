"""The container that a coded network lives in."""
