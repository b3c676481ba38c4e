"""What names mean: tables, files, frames and functions, through the one DuckDB connection of a session.

DuckDB never calls into Python here. One stream is open on the main connection at a time (DuckDB allows no more);
what inference produced meets SQL again on a second cursor, batch by batch or through a scratch database that spills.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from itertools import count
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.ipc

from dql.config import Config
from dql.errors import BindError, ConfigError, DqlError, ExecutionError, OutOfMemoryError, ParseError, name_hint

SCRATCH = "dql_scratch"
Params = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Field:
    """A column as DuckDB describes it: its name and SQL type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table, view or frame that a query can name."""

    name: str
    kind: str
    columns: tuple[Field, ...]


class Catalog:
    """The session's DuckDB. `path` None is in memory; frames are known by name until they are replaced."""

    def __init__(self, path: str | None, config: Config) -> None:
        with _errors():
            self._main = duckdb.connect(path or ":memory:")
            self._main.execute("SET python_enable_replacements = false")
            self._main.execute("SET enable_progress_bar = false")
            if config.memory_limit:
                self._main.execute(f"SET memory_limit = {quote_string(config.memory_limit)}")
            if config.threads:
                self._main.execute(f"SET threads = {config.threads}")
            self._main.execute(f"ATTACH ':memory:' AS {SCRATCH}")
            self._side = self._main.cursor()
        self._frames: dict[str, object] = {}
        self._scratch_ids = count()
        self._aggregates: frozenset[str] | None = None

    # ---- describing -------------------------------------------------------------------------------------------

    def describe(self, sql: str, params: Params | None = None) -> tuple[Field, ...]:
        """Columns of a query, without running it. Raises BindError or ParseError in DuckDB's words."""
        with _errors():
            relation = self._main.sql(sql, params=self._used(sql, params))
            return tuple(Field(n, str(t)) for n, t in zip(relation.columns, relation.types, strict=True))

    def table_names(self, sql: str) -> set[str]:
        """Names that `sql` reads from: tables, views, files, frames."""
        with _errors():
            try:
                return set(self._main.get_table_names(sql))
            except duckdb.BinderException:  # it gives every table one dummy column, which USING and NATURAL refuse
                tree = json.loads(self._main.execute("SELECT json_serialize_sql($1)", [sql]).fetchall()[0][0])
                if tree["error"]:
                    raise
                return set(_tables_of(tree, frozenset()))

    def has_table(self, name: str) -> bool:
        """Whether a table or view of this name exists; frames are neither."""
        with _errors():
            found = self._main.execute(
                "SELECT false FROM duckdb_tables() WHERE lower(table_name) = lower($1) UNION ALL "
                "SELECT temporary FROM duckdb_views() WHERE lower(view_name) = lower($1) AND NOT internal",
                [name],
            ).fetchall()
        return any(not (is_temporary and self.has_frame(name)) for (is_temporary,) in found)

    def is_stored(self, name: str) -> bool:
        """Whether this is a table or a frame, whose rows are the same each time it is read; views may not be."""
        if self.has_frame(name):
            return True
        with _errors():
            found = self._main.execute("SELECT 1 FROM duckdb_tables() WHERE lower(table_name) = lower($1)", [name])
            return found.fetchall() != []

    def has_frame(self, name: str) -> bool:
        """Whether a frame is known by this name."""
        return name.lower() in (known.lower() for known in self._frames)

    def names(self) -> list[str]:
        """Names of all tables, views and frames."""
        return [table.name for table in self.tables()]

    def tables(self) -> list[TableInfo]:
        """Every table, view and frame of the session, with its columns."""
        with _errors():
            rows = self._main.execute(
                "SELECT c.table_name, t.table_type, c.column_name, c.data_type FROM information_schema.columns c "
                "JOIN information_schema.tables t USING (table_catalog, table_schema, table_name) "
                f"WHERE c.table_catalog <> '{SCRATCH}' AND c.table_schema NOT IN ('dql', 'information_schema') "
                "ORDER BY c.table_name, c.ordinal_position"
            ).fetchall()
        columns: dict[tuple[str, str], list[Field]] = {}
        for table, kind, column, data_type in rows:
            name = "frame" if table in self._frames else "view" if kind == "VIEW" else "table"
            columns.setdefault((table, name), []).append(Field(column, data_type))
        return [TableInfo(name, kind, tuple(fields)) for (name, kind), fields in columns.items()]

    @property
    def aggregates(self) -> frozenset[str]:
        """Lower-case names of DuckDB's aggregate functions."""
        if self._aggregates is None:
            with _errors():
                rows = self._main.execute(
                    "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type = 'aggregate'"
                ).fetchall()
            self._aggregates = frozenset(name for (name,) in rows)
        return self._aggregates

    # ---- frames -----------------------------------------------------------------------------------------------

    def register(self, name: str, frame: object) -> None:
        """Make a Polars or pandas frame, Arrow table or reader, or mapping of columns known as `name`."""
        with _errors():
            self._main.register(name, as_arrow(name, frame))
        self._frames[name] = frame

    def unregister(self, name: str) -> None:
        """Forget a frame."""
        with _errors():
            self._main.unregister(name)
        del self._frames[name]

    # ---- running ----------------------------------------------------------------------------------------------

    def is_query(self, sql: str) -> bool:
        """Whether a plain statement yields rows to be read; others are run for their effect."""
        with _errors():
            statements = self._main.extract_statements(sql)
        only_rows = [duckdb.ExpectedResultType.QUERY_RESULT]
        return all(s.expected_result_type == only_rows or s.type == duckdb.StatementType.MULTI for s in statements)

    def has_setting(self, name: str) -> bool:
        """Whether DuckDB has a setting of this name."""
        with _errors():
            return self._main.execute("SELECT 1 FROM duckdb_settings() WHERE name = $1", [name]).fetchall() != []

    def execute(self, sql: str, params: Params | None = None) -> None:
        """Run one plain statement to its end on the main connection."""
        with _errors():
            # An open result would refuse the next statement, so even what nobody reads is fetched.
            self._main.execute(sql, self._used(sql, params)).fetchall()

    def rows(self, sql: str) -> list[tuple[str, ...]]:
        """All rows of a small query."""
        with _errors():
            return self._main.execute(sql).fetchall()

    def stream(self, sql: str, rows: int, params: Params | None = None) -> Iterator[pa.RecordBatch]:
        """Batches of a query in order, at most `rows` each and at least one; closing the iterator stops the query."""
        with _errors():
            reader = self._main.sql(sql, params=self._used(sql, params)).to_arrow_reader(rows)
        empty = True
        try:
            while True:
                with _errors():
                    try:
                        batch = reader.read_next_batch()
                    except StopIteration:
                        break
                if batch.num_rows:
                    empty = False
                    yield batch
            if empty:
                yield pa.RecordBatch.from_pylist([], schema=reader.schema)
        finally:
            reader.close()

    def map_batch(
        self, sql: str, name: str, batch: pa.RecordBatch, params: Params | None = None
    ) -> list[pa.RecordBatch]:
        """Run a row-wise query over one batch, known to it as `name`; at least one batch comes back."""
        with _errors():
            self._side.register(name, pa.Table.from_batches([batch]))
            try:
                table = self._side.sql(sql, params=self._used(sql, params)).to_arrow_table()
            finally:
                self._side.unregister(name)
        return table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]

    def materialise(self, batches: Iterable[pa.RecordBatch]) -> str:
        """Keep batches, of which there is at least one, in a scratch table that spills; returns its name for SQL."""
        name = f"{SCRATCH}.t{next(self._scratch_ids)}"
        for number, batch in enumerate(batches):
            verb = f"INSERT INTO {name}" if number else f"CREATE TABLE {name} AS"
            with _errors():
                self._side.register("dql_batch", pa.Table.from_batches([batch]))
                self._side.execute(f"{verb} SELECT * FROM dql_batch")
                self._side.unregister("dql_batch")
        return name

    def texts(self, sql: str, params: Params | None = None) -> list[str]:
        """The values of a query of one text column, NULLs left out. Raises BindError for any other shape."""
        with _errors():
            relation = self._main.sql(sql, params=self._used(sql, params))
            if len(relation.columns) != 1:
                raise BindError(f"a query of labels has one column, not {len(relation.columns)}")
            return [str(value) for (value,) in relation.fetchall() if value is not None]

    def drop(self, name: str) -> None:
        """Forget a scratch table."""
        with _errors():
            self._side.execute(f"DROP TABLE IF EXISTS {name}")

    def interrupt(self) -> None:
        """Stop what runs now; callable from any thread."""
        self._main.interrupt()
        self._side.interrupt()

    def close(self) -> None:
        self._side.close()
        self._main.close()

    def _used(self, sql: str, params: Params | None) -> dict[str, object] | None:
        """The parameters that this statement names; DuckDB refuses any others."""
        if "$" not in sql:
            return None
        params = params or {}
        names = set().union(*(s.named_parameters for s in self._main.extract_statements(sql)))
        missing = names - params.keys()
        if missing:
            name = sorted(missing)[0]
            error = BindError(f"no value for parameter ${name}", hint=name_hint(name, params))
            error.excerpt = f"${name}", 0
            raise error
        return {name: params[name] for name in names} or None


def as_arrow(name: str, frame: object) -> object:
    """The Arrow form of a frame from the user's scope. Raises BindError for what is no table."""
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatchReader):
        return frame.read_all()  # a reader can be read once, a table as often as a query is described and run
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if isinstance(frame, Mapping):
        return pa.table(dict(frame))
    module = type(frame).__module__.partition(".")[0]
    if module == "polars":
        return _polars_as_arrow(frame)
    if module == "pandas":
        return pa.Table.from_pandas(frame, preserve_index=False)
    if module in ("pyarrow", "duckdb", "_duckdb") or hasattr(frame, "__arrow_c_stream__"):
        return frame
    raise BindError(
        f"{name} is a {type(frame).__name__}, not a table",
        hint="dql reads Polars and pandas frames, Arrow tables, and mappings of columns",
    )


def _polars_as_arrow(frame: Any) -> object:
    collected = frame.collect() if hasattr(frame, "collect") else frame
    return (collected if hasattr(collected, "columns") else collected.to_frame()).to_arrow()


def read_arrow(path: str) -> pa.Table:
    """The rows of Arrow files, mapped rather than loaded; `path` may have wildcards. Errors name the file."""
    found = sorted(glob(path))
    if not found:
        raise _no_file(path)
    tables = []
    for file in found:
        try:
            tables.append(pa.ipc.open_file(pa.memory_map(file)).read_all())
        except (pa.ArrowException, OSError) as error:
            raise ExecutionError(f"{file} is no Arrow file: {error}") from error
    return pa.concat_tables(tables, promote_options="default")


def _no_file(path: str) -> BindError:
    error = BindError(f"no file {path}", hint="paths are relative to the folder that dql runs in")
    error.excerpt = path, 0
    return error


def is_frame(value: object) -> bool:
    """Whether a variable of the caller can stand for a table."""
    kind = type(value)
    if kind.__module__.partition(".")[0] in ("polars", "pandas"):
        return kind.__name__ in ("DataFrame", "LazyFrame", "Series")
    return not isinstance(value, type) and hasattr(value, "__arrow_c_stream__")


def quote_string(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """An SQL identifier, always quoted."""
    return '"' + name.replace('"', '""') + '"'


def quote_path(path: Iterable[str]) -> str:
    """A name with its schema and catalog, as SQL."""
    return ".".join(map(quote_name, path))


def behind(tables: Mapping[str, str], sql: str) -> str:
    """`sql` where each of the names is the table that its query yields."""
    if not tables:
        return sql
    named = ", ".join(f"{quote_name(name)} AS ({query})" for name, query in tables.items())
    return f"WITH {named} SELECT * FROM ({sql})"


def _tables_of(tree: Any, bound: frozenset[str]) -> Iterator[str]:
    """The tables that DuckDB's own tree of a query reads, but for its CTEs, whose names are `bound`."""
    if isinstance(tree, list):
        for part in tree:
            yield from _tables_of(part, bound)
    elif isinstance(tree, dict):
        for cte in tree.get("cte_map", {}).get("map", ()):
            name, value = cte["key"].lower(), cte["value"]
            recursive = value["query_node"]["type"] == "RECURSIVE_CTE_NODE"
            yield from _tables_of(value, bound | {name} if recursive else bound)
            bound |= {name}
        if tree.get("type") == "BASE_TABLE" and tree["table_name"].lower() not in bound:
            yield tree["table_name"]
        for key, part in tree.items():
            if key != "cte_map":
                yield from _tables_of(part, bound)


@contextmanager
def _errors() -> Iterator[None]:
    """DuckDB's errors as dql's own; an interrupted query as KeyboardInterrupt."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error) from error
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
    except (pa.ArrowException, OSError) as error:  # Arrow's own IOError is Python's OSError
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise ExecutionError(str(error)) from error


_PLACE = re.compile(r"\n+LINE (\d+): (.*)\n( *)\^+\s*$", re.DOTALL)
_CTRL_C = re.compile(r" failed: KeyboardInterrupt:?\s*\Z")  # while DuckDB looked at a frame
_SOURCE = re.compile(r" when casting from source column _\d+")  # a plan's own name for it
_MISSING = re.compile(r'No files found that match the pattern "([^"]+)"')
_NAMED = re.compile(r'[Cc]olumn "([^"]+)"|(?:Table|Function) with name "?([\w.]+)"? does not exist')


_CSV = re.compile(r"CSV Error on Line: (\d+)\n(?:Original Line: [^\n]*\n)?([^\n]*)\n.*?\n *file = ([^\n]+)", re.DOTALL)


def translate(error: duckdb.Error) -> DqlError:
    """A dql error that says what DuckDB said, without its decoration."""
    found = _translate(error, _PLACE.sub("", str(error)).strip())
    if (place := _PLACE.search(str(error))) is not None:
        line, caret = place[2], len(place[3]) - len(f"LINE {place[1]}: ")
        cut = len(line) - len(line.removeprefix("..."))
        found.excerpt = line.removeprefix("...").removesuffix("..."), caret - cut
    elif (name := _NAMED.search(found.message)) is not None:
        found.excerpt = (name[1] or name[2]).rpartition(".")[2], 0
    return found


def _translate(error: duckdb.Error, text: str) -> DqlError:
    kind, _, message = _SOURCE.sub("", text).partition(" Error: ")
    message, _, rest = (message or text).partition("\n")
    hint = None if rest.lstrip().startswith("Candidate functions") else " ".join(rest.split()) or None
    if isinstance(error, duckdb.InterruptException) or _CTRL_C.search(str(error)):
        raise KeyboardInterrupt from error
    if isinstance(error, duckdb.OutOfMemoryException):
        return OutOfMemoryError(message, hint=hint or "raise DQL_MEMORY_LIMIT or read fewer columns")
    if isinstance(error, duckdb.ParserException):
        return ParseError(message, hint=hint)
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        return BindError(message, hint=hint)
    if (missing := _MISSING.search(message)) is not None:
        return _no_file(missing[1])
    if (csv := _CSV.search(text)) is not None:
        option = "encoding = 'latin-1'" if "unicode" in csv[2] else "ignore_errors = true"
        found = ExecutionError(f"{csv[3]}, line {csv[1]}: {csv[2]}", hint=f"write read_csv('{csv[3]}', {option})")
        found.excerpt = csv[3], 0
        return found
    if isinstance(error, duckdb.IOException | duckdb.HTTPException | duckdb.PermissionException):
        return ExecutionError(message, hint=hint)
    if isinstance(error, duckdb.ResourceInUseException):
        return ExecutionError(
            "another result of this session is still being read",
            hint="read it to its end, close it, or use dql.connect()",
        )
    if kind in ("Invalid Configuration",):
        return ConfigError(message, hint=hint)
    return ExecutionError(message, hint=hint)
