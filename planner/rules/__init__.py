"""Rewrite rules: one file, one function each."""
