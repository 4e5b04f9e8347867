"""The documentation's figures and tables, drawn from results."""
