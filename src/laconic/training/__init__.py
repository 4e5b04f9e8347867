"""One plain loop, and rules that act around its optimizer."""
