"""Every published figure: one script a table, its JSON result beside it."""
