"""Every published figure: a script for each table, and what it gave in `results`."""
