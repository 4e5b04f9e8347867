"""Pictures and pages that show what a compression did."""
