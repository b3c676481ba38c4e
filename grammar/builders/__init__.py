"""What the parser builds: one function for each rule of dql.lark, by its name."""

from dql.grammar.builders.calls import CALLS
from dql.grammar.builders.clauses import CLAUSES
from dql.grammar.builders.expressions import EXPRESSIONS
from dql.grammar.builders.parts import Builder
from dql.grammar.builders.queries import QUERIES
from dql.grammar.builders.statements import STATEMENTS

BUILDERS: dict[str, Builder] = {**EXPRESSIONS, **CALLS, **CLAUSES, **QUERIES, **STATEMENTS}
