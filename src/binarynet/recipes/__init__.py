"""Recipes as TOML files; read with ``binarynet.training.recipe``."""
