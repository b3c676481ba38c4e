"""Syntax trees to canonical text."""

from dql.grammar.unparse import calls, clauses, expressions, queries, statements
from dql.grammar.unparse.core import to_sql

__all__ = ["calls", "clauses", "expressions", "queries", "statements", "to_sql"]
