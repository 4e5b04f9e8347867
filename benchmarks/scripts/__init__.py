"""One runnable script a benchmark: `python -m benchmarks.scripts.NAME`; `--help` says what it measures."""
