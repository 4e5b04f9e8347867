"""Recipes: a choice of every axis as plain text, and its run, which is done once."""
