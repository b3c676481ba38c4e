"""Statements to plans: names and types, rewrite rules, costs. Plain data, no torch, no duckdb."""
