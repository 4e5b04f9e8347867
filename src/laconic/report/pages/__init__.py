"""Self-contained HTML pages, to be read without a network."""
