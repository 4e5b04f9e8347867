"""Cutting a model really smaller: trace what is coupled, plan what stays, replay the plan."""
