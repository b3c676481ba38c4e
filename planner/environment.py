"""What a query may refer to while it is bound: tables, models, functions, parameters, settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from dql.grammar import ast
from dql.planner.contract import Value
from dql.planner.logical import Column, LogicalPlan


class ColumnInfo(Protocol):
    """A column as the catalog describes it."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...


class Catalog(Protocol):
    """What the binder asks of the relational engine; of a query run only subqueries of constant labels, and a
    sample of the columns that `{*}` stands for."""

    def describe(self, sql: str, params: Mapping[str, object] | None = None) -> Sequence[ColumnInfo]: ...
    def rows(self, sql: str) -> list[tuple[str, ...]]: ...
    def is_stored(self, name: str) -> bool: ...
    def table_names(self, sql: str) -> set[str]: ...
    def texts(self, sql: str, params: Mapping[str, object] | None = None) -> list[str]: ...
    def names(self) -> list[str]: ...
    @property
    def aggregates(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Macro:
    """A function of the session whose body holds inference."""

    params: tuple[ast.Parameter, ...]
    body: ast.Expr


@dataclass(frozen=True)
class Environment:
    """Everything names can mean in one statement. `views` hold inference; plain ones are the catalog's.

    model: the one that calls run on: the session's default, or what USING names; cascade: models that are asked first
    where a call has labels to be sure of; alternatives: models that may take its place; draft: one that guesses ahead
    for it. check_model turns a model as written into its registered name, or raises BindError. check_draft raises
    UnsupportedError where the second of two names cannot guess ahead for the first, as far as their files are here.
    """

    catalog: Catalog
    check_model: Callable[[ast.ModelRef], str]
    check_draft: Callable[[str, str], None]
    model: str
    cascade: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    draft: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, Value] = field(default_factory=dict)
    macros: Mapping[str, Macro] = field(default_factory=dict)
    views: Mapping[str, ast.Query] = field(default_factory=dict)
    ctes: tuple[ast.Cte, ...] = ()
    recursive: bool = False
    plans: dict[str, tuple[LogicalPlan, tuple[str, ...]]] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)

    def new_column(self, label: str, sql_type: str = "") -> Column:
        """A column whose name no other column of this statement has."""
        return Column(f"_{next(self._numbers)}", sql_type, label)

    def keep_plan(self, plan: LogicalPlan, types: tuple[str, ...]) -> str:
        """Make a plan whose columns have these types readable by SQL as a table; returns that table's name."""
        name = f"dql_in_{len(self.plans)}"
        self.plans[name] = (plan, types)
        return name

    def stub(self, name: str) -> str:
        """A select list with the names and types of a kept plan's columns."""
        plan, types = self.plans[name]
        return ", ".join(f'CAST(NULL AS {t}) AS "{c.name}"' for c, t in zip(plan.columns, types, strict=True))

    def with_plans(self, plans: Mapping[str, tuple[LogicalPlan, tuple[str, ...]]], first: int) -> "Environment":
        """Itself with these plans kept; its new columns are numbered from `first`, whatever others have numbered."""
        return replace(self, plans=dict(plans), _numbers=count(first))

    def next_number(self) -> int:
        """A number that no column has, nor will have."""
        return next(self._numbers)

    def with_models(
        self,
        model: str,
        *,
        cascade: tuple[str, ...] = (),
        alternatives: tuple[str, ...] = (),
        draft: str | None = None,
    ) -> "Environment":
        """What USING makes of it."""
        return replace(self, model=model, cascade=cascade, alternatives=alternatives, draft=draft)

    def with_ctes(self, ctes: tuple[ast.Cte, ...], recursive: bool = False) -> "Environment":
        return replace(self, ctes=(*self.ctes, *ctes), recursive=self.recursive or recursive)

    def inside_view(self, name: str) -> "Environment":
        """Where the query of a view is bound: it sees no CTEs of the query that reads it, and not itself."""
        views = {known: query for known, query in self.views.items() if known != name}
        return replace(self, ctes=(), recursive=False, views=views)
