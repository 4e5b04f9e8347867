from .recipe import Recipe, parse_recipe, read_recipe
from .results import Result, read_results, trials
from .run import run_recipe

__all__ = ["Recipe", "Result", "parse_recipe", "read_recipe", "read_results", "run_recipe", "trials"]
