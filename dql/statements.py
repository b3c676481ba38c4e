"""What each kind of statement does. A query is planned here and handed to the runtime; the rest is done at once."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dql import describing, explaining
from dql.catalog import quote_name, quote_path
from dql.errors import BindError, DqlError, UnsupportedError, name_hint, nearest
from dql.estimate import Estimate, estimate
from dql.explaining import remember
from dql.grammar import ast
from dql.grammar.names import SHOWN
from dql.judging import asks_ahead
from dql.names import view_query
from dql.planner.adapt import Adviser
from dql.planner.bind_contract import bind_contract, bind_value
from dql.planner.binder import bind
from dql.planner.contract import SETTING_KINDS, setting_kind, setting_value
from dql.planner.environment import Environment
from dql.planner.explain import explain as explain_plan
from dql.planner.physical import ErrorPolicy
from dql.planner.places import named
from dql.planner.plan import Planned, plan_query
from dql.result import Outcome, Result, rows
from dql.resuming import as_run, journal
from dql.showing import HARDWARE_COLUMNS, RUN_COLUMNS, hardware_rows, run_rows

if TYPE_CHECKING:
    from dql.executor.progress import Progress
    from dql.executor.runtime import Run
    from dql.session import Session

SCAN_ROWS = 2048
_SHOW_TABLES = re.compile(r"\s*SHOW\s+TABLES\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """One statement's surroundings."""

    session: "Session"
    text: str
    params: Mapping[str, object]
    progress: "Callable[[Progress], None] | None"


def execute(
    statement: ast.Statement,
    session: "Session",
    text: str,
    params: Mapping[str, object],
    progress: "Callable[[Progress], None] | None",
) -> Result:
    """Run one statement. Queries come back lazy, all else has been done."""
    call = Call(session, text, params, progress)
    match statement:
        case ast.QueryStatement():
            return query(statement.query, call)
        case ast.PlainSql():
            return plain(statement, call)
        case ast.Explain():
            return explain(statement, call)
        case ast.Copy():
            return copy(statement, call)
        case ast.CreateTable():
            return create_table(statement, call)
        case ast.Insert():
            return insert(statement, call)
        case ast.CreateView() | ast.CreateFunction():
            return create_name(statement, call)
        case ast.CreateModel():
            return create_model(statement, call)
        case ast.Drop():
            return drop(statement, call)
        case ast.Show():
            return show(statement, call)
        case ast.DescribeModel():
            return describe_model(statement, call)
        case ast.DescribeQuery():
            return describing.describe(plan(statement.query, call), session.catalog)
        case ast.SummarizeQuery():
            planned = plan(statement.query, call)
            return describing.summarize(planned, session.catalog, start(planned, call))
        case ast.SetSetting():
            return set_setting(statement, call)
        case ast.ResetSetting():
            return reset_setting(statement, call)
    raise UnsupportedError(f"{_spelling(statement)} does not run yet", span=statement.span)


# ---- queries ----------------------------------------------------------------------------------------------------


def plan(query: ast.Query, call: Call) -> Planned:
    """Bind, rewrite and lower a query."""
    session = call.session
    contract = bind_contract(query.contract, call.params, session.settings_in_force)
    env = Environment(
        catalog=session.catalog,
        check_model=session.check_model,
        check_draft=session.check_draft,
        model=session.model,
        params=call.params,
        settings={**session.settings_in_force, **contract.pinned},
        macros=session.names.macros,
        views=session.names.views,
    )
    return plan_query(bind(query, env), contract, env)


def query(query: ast.Query, call: Call) -> Result:
    """A query: lazy, or with INTO run at once."""
    planned = plan(query, call)
    if query.into is not None:
        return into(query.into, planned, call)

    def begun() -> Outcome:
        try:
            run = start(planned, call)
        except DqlError as error:
            raise error.located(call.text, query.span) from error.__cause__
        return replace(unbegun, batches=run.batches, run=run)

    unbegun = Outcome(
        planned.query.names,
        planned.query.types,
        lambda: begun().batches(),
        explain=lambda: explained(planned, call),
        begin=begun,
    )
    if not asks_ahead(planned):
        return Result(begun())
    estimate(planned, call.session, call.params)  # a contract that nothing keeps fails here; models are asked later
    return Result(unbegun)


def start(planned: Planned, call: Call) -> "Run":
    """A run of the plan that `cancel` reaches. Raises PlanError where no plan keeps the contract."""
    return begin(planned, call)[0]


def begin(planned: Planned, call: Call) -> "tuple[Run, Estimate]":
    """`start`, and what was predicted of the run."""
    contract = planned.contract
    policy = ErrorPolicy(
        on_error=str(contract.setting("on_error")),
        limit=contract.setting("reject_limit"),  # type: ignore[arg-type]
        on_overflow=str(contract.setting("on_overflow")),
        rejects=contract.setting("rejects"),  # type: ignore[arg-type]
        row_timeout=contract.setting("row_timeout"),  # type: ignore[arg-type]
    )
    if policy.rejects is not None:
        _check_folder(policy.rejects, None)
    found = estimate(planned, call.session, call.params, running=True, progress=call.progress)
    query = as_run(found)
    run = call.session.runtime.start(query, policy, call.params, call.progress)
    if found.evidence is not None:
        found.evidence.teach(run.context)
    run.resume(call.session.config.unfinished_dir, partial(journal, query, call.session, call.params))
    if (budget := contract.bound("budget")) is not None:
        run.context.token_budget = budget.value
    if found.choice is not None:
        run.context.adviser = Adviser(found.choice)
    run.judge = lambda ended: explaining.judged(ended, found)
    run.finished = lambda ended: remember(ended, found, call.session, call.text)
    call.session.watch(run)
    return run, found


def into(target: ast.Into, planned: Planned, call: Call) -> Result:
    """INTO: run now and write, in one step at the end, to a file or table."""
    if target.path is None:
        verb = f"CREATE OR REPLACE TABLE {quote_path(target.table)} AS"
        return _write_table(verb, target.table, planned, call)
    path = target.path.value
    if target.partition_by or path.endswith("/"):
        raise UnsupportedError(
            "writing a directory does not run yet", span=target.span, hint="name a file: 'out.parquet'"
        )
    try:
        target_file = call.session.runtime.file(path, _options(target.options, call), planned.query)
    except DqlError as error:
        error.span = error.span or target.path.span
        raise
    _check_folder(path, target.span)
    _check_apart(path, planned, target.path.span)
    run = start(planned, call)
    run.delivers = False
    with target_file as file:
        file.write(run.batches())
        if run.interrupted:
            raise KeyboardInterrupt
        run.context.tracker.phase("committing", path)
        file.commit()
    run.settle()
    return _written(run, path, planned, call)


def _check_folder(path: str, span: ast.Span | None) -> None:
    folder = Path(path).parent
    if not folder.is_dir():
        raise BindError(f"there is no folder {folder}", span=span, hint="create it first")


def _check_apart(path: str, planned: Planned, span: ast.Span) -> None:
    rejects = planned.contract.setting("rejects")
    if rejects is not None and Path(str(rejects)).resolve() == Path(path).resolve():
        raise BindError(f"{path} is to hold both the rows and the rejected ones", span=span, hint="name two files")


def _write_table(verb: str, name: ast.Path, planned: Planned, call: Call) -> Result:
    """Run now, keep the rows aside, then write them to the table in one step: `verb` SELECT …."""
    catalog = call.session.catalog
    run = start(planned, call)
    run.delivers = False
    scratch = catalog.materialise(run.batches())
    try:
        if run.interrupted:
            raise KeyboardInterrupt
        catalog.execute(f"{verb} SELECT * FROM {scratch}")
    finally:
        catalog.drop(scratch)
    run.settle()
    return _written(run, ".".join(name), planned, call)


def _written(run: "Run", path: str, planned: Planned, call: Call) -> Result:
    """The one row that a written target yields."""
    stats = run.stats()
    columns = [
        ("rows", "BIGINT"),
        ("nulls", "BIGINT"),
        ("failed", "BIGINT"),
        ("seconds", "DOUBLE"),
        ("path", "VARCHAR"),
    ]
    shown = rows(columns, [(stats.rows, stats.nulls, stats.failed, round(stats.seconds, 3), path)], "write")
    return shown.of_run(run, lambda: explained(planned, call))


def copy(statement: ast.Copy, call: Call) -> Result:
    """COPY (query) TO 'file': INTO by another name."""
    into_clause = ast.Into(path=statement.path, options=statement.options, span=statement.path.span)
    return into(into_clause, plan(statement.query, call), call)


def create_table(statement: ast.CreateTable, call: Call) -> Result:
    """CREATE TABLE … AS a query with inference."""
    name = statement.name[-1]
    if name.lower() in call.session.names.views:
        raise BindError(f"{name} is a view", span=statement.span, hint=f"write DROP VIEW {name} first")
    if not statement.or_replace and call.session.catalog.has_table(name):
        if statement.if_not_exists:
            return _done("create")
        raise BindError(f"table {name} exists already", span=statement.span, hint="write CREATE OR REPLACE TABLE")
    or_replace, temp = "OR REPLACE " if statement.or_replace else "", "TEMP " if statement.temporary else ""
    verb = f"CREATE {or_replace}{temp}TABLE {quote_path(statement.name)}{_columns(statement.columns)} AS"
    planned = plan(statement.query, call)
    if statement.columns and len(statement.columns) > len(planned.fields):
        what = f"table {name} has {len(statement.columns)} names for {len(planned.fields)} columns"
        raise BindError(what, span=statement.span)
    return _write_table(verb, statement.name, planned, call)


def insert(statement: ast.Insert, call: Call) -> Result:
    """INSERT INTO a table from a query with inference: its rows come in together, or none does."""
    catalog, planned = call.session.catalog, plan(statement.query, call)
    by_name = " BY NAME" if statement.by_name else ""
    verb = f"INSERT INTO {quote_path(statement.table)}{_columns(statement.columns)}{by_name}"
    try:
        catalog.execute(f"EXPLAIN {verb} {describing.typed(planned)}")  # what does not fit, fails before any call
    except DqlError as error:
        found = named(error, catalog.names())
        found.span = statement.span
        raise found from error
    return _write_table(verb, statement.table, planned, call)


def _columns(names: Sequence[str]) -> str:
    return f" ({', '.join(map(quote_name, names))})" if names else ""


def plain(statement: ast.PlainSql, call: Call) -> Result:
    """DuckDB's own statements: a query is streamed, anything else runs now."""
    catalog, sql = call.session.catalog, statement.text
    if _SHOW_TABLES.fullmatch(sql) and call.session.names.views:  # DuckDB does not know them
        names = {table.name for table in call.session.tables()}
        return rows([("name", "VARCHAR")], [(name,) for name in sorted(names)], "query")
    try:
        if not catalog.is_query(sql):
            catalog.execute(sql, call.params)
            return _done("statement")
        fields = catalog.describe(sql, call.params)
    except DqlError as error:
        raise _misread(named(error, catalog.names()), sql) from error

    def batches() -> Iterator[pa.RecordBatch]:
        yield from catalog.stream(sql, SCAN_ROWS, call.params)

    return Result(Outcome(tuple(f.name for f in fields), tuple(f.type for f in fields), batches))


def _misread(error: DqlError, sql: str) -> DqlError:
    """SHOW MODLES is DuckDB's SHOW of a table, but was not meant so."""
    shown = re.fullmatch(r"SHOW\s+(\w+)", sql.strip(), re.IGNORECASE)
    if shown is not None and (near := nearest(shown[1], SHOWN)):
        error.hint = f"did you mean SHOW {near[0]}?"
    return error


# ---- names ------------------------------------------------------------------------------------------------------


def create_name(statement: ast.CreateView | ast.CreateFunction, call: Call) -> Result:
    """A view or function with inference: kept as a tree, expanded where it is used."""
    session, name = call.session, statement.name[-1].lower()
    known: Mapping[str, object] = session.names.views if isinstance(statement, ast.CreateView) else session.names.macros
    if name in known and not statement.or_replace:
        if statement.if_not_exists:
            return _done("create")
        raise BindError(f"{name} exists already", span=statement.span, hint="write CREATE OR REPLACE")
    if isinstance(statement, ast.CreateView):
        if (contract := statement.query.contract) is not None:
            hint = "write it at the queries that read the view; options of a call may stand in its brackets"
            raise BindError("a view keeps no WITH", span=contract.span, hint=hint)
        plan(view_query(statement), call)
        _make_way(statement, session)
    session.names.create(statement)
    return _done("create")


def _make_way(view: ast.CreateView, session: "Session") -> None:
    """A view without inference of the same name goes where OR REPLACE says so; a table never does."""
    name = view.name[-1]
    kind = next((t.kind for t in session.catalog.tables() if t.name.lower() == name.lower()), None)
    if kind == "view" and view.or_replace:
        session.catalog.execute(f"DROP VIEW {quote_path(view.name)}")
    elif kind in ("view", "table"):
        hint = "write CREATE OR REPLACE VIEW" if kind == "view" else "give the view another name, or drop the table"
        raise BindError(f"{kind} {name} exists already", span=view.span, hint=hint)


def create_model(statement: ast.CreateModel, call: Call) -> Result:
    """Register a model under a name."""
    registry = call.session.registry
    if statement.if_not_exists and any(m.name == statement.name.lower() for m in registry.list()):
        return _done("create")
    registry.create(
        statement.name, statement.uri.value, _options(statement.options, call), or_replace=statement.or_replace
    )
    call.session.forget(statement.name)
    return _done("create")


def drop(statement: ast.Drop, call: Call) -> Result:
    """DROP MODEL, and VIEW or FUNCTION where it holds inference."""
    session, name = call.session, statement.name[-1]
    if statement.kind == "MODEL":
        known = [m.name for m in session.registry.list()]
        if name.lower() in known:
            session.registry.remove(name)
            session.forget(name)
            return _done("drop")
    elif statement.kind in ("VIEW", "FUNCTION"):
        known = list(session.names.views if statement.kind == "VIEW" else session.names.macros)
        if name.lower() in known:
            session.names.drop(statement.kind, name)
            return _done("drop")
    else:
        raise UnsupportedError("adapters do not run yet", span=statement.span)
    if statement.if_exists:
        return _done("drop")
    raise BindError(f"no {statement.kind.lower()} {name}", span=statement.span, hint=name_hint(name, known))


def describe_model(statement: ast.DescribeModel, call: Call) -> Result:
    """What is known of a model."""
    info = call.session.registry.describe(statement.model.name)
    facts: list[tuple[str, str]] = [(f.name, str(getattr(info, f.name))) for f in fields(info)]
    if info.installed:
        model = call.session.registry.resolve(statement.model.name)
        facts += [(f.name, str(getattr(model.shape, f.name))) for f in fields(model.shape)]
        facts += [("parameters", f"{model.shape.parameters:,}"), ("digest", model.digest)]
    return rows([("property", "VARCHAR"), ("value", "VARCHAR")], facts, "query")


def show(statement: ast.Show, call: Call) -> Result:
    """SHOW MODELS, SETTINGS, FUNCTIONS."""
    session = call.session
    if statement.what == "MODELS":
        columns = [
            ("name", "VARCHAR"),
            ("installed", "BOOLEAN"),
            ("mb", "DOUBLE"),
            ("license", "VARCHAR"),
            ("uri", "VARCHAR"),
        ]
        found = [
            (m.name, m.installed, round(m.size / 1e6, 1) if m.size else None, m.license, m.uri)
            for m in session.registry.list()
        ]
        return rows(columns, found, "query")
    if statement.what == "SETTINGS":
        columns = [(c, "VARCHAR") for c in ("name", "value", "default", "unit", "description")]
        return rows(columns, [astuple(s) for s in session.settings()], "query")
    if statement.what == "FUNCTIONS":
        columns = [(c, "VARCHAR") for c in ("name", "signature", "description")]
        return rows(columns, [astuple(f) for f in session.functions()], "query")
    if statement.what == "RUNS":
        return rows(RUN_COLUMNS, run_rows(session.history), "query")
    if statement.what == "HARDWARE":
        return rows(HARDWARE_COLUMNS, hardware_rows(session.machine), "query")
    raise UnsupportedError(f"SHOW {statement.what} does not run yet", span=statement.span)


def set_setting(statement: ast.SetSetting, call: Call) -> Result:
    """A session default; names that are not dql's are DuckDB's."""
    session, name = call.session, statement.name.text.lower()
    value, unit = bind_value(statement.value, call.params)
    if name == "model":
        session.model = session.check_model(ast.ModelRef(str(value), span=statement.value.span))
    elif name in SETTING_KINDS:
        session.settings_in_force[name] = setting_value(name, value, unit, span=statement.value.span)
    elif session.catalog.has_setting(name):
        session.catalog.execute(call.text[slice(*statement.span)])
    else:
        setting_kind(name, span=statement.name.span)
    return _done("set")


def reset_setting(statement: ast.ResetSetting, call: Call) -> Result:
    """Back to the default."""
    session, name = call.session, statement.name.text.lower()
    if name == "model":
        session.model = session.config.model
    elif name in SETTING_KINDS:
        session.settings_in_force.pop(name, None)
    elif session.catalog.has_setting(name):
        session.catalog.execute(call.text[slice(*statement.span)])
    else:
        setting_kind(name, span=statement.name.span)
    return _done("set")


# ---- EXPLAIN ----------------------------------------------------------------------------------------------------


def explain(statement: ast.Explain, call: Call) -> Result:
    """The plan with its figures; with ANALYZE the query runs."""
    planned = plan(statement.query, call)
    return explaining.explain(statement, planned, call.session, call.params, lambda: begin(planned, call))


def explained(planned: Planned, call: Call) -> str:
    """What EXPLAIN prints for a plan."""
    found = estimate(planned, call.session, call.params, strict=False)
    return explain_plan(explaining.explanation_of(found))


def _options(options: tuple[ast.Option, ...], call: Call) -> dict[str, object]:
    return {o.name.text.lower(): True if o.value is None else bind_value(o.value, call.params)[0] for o in options}


def _done(kind: str) -> Result:
    return rows([], [], kind)


def _spelling(statement: ast.Statement) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(statement).__name__).upper()
