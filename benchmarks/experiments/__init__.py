"""Research code that a benchmark or a test uses, and no user of the package."""
