"""Builds a table of thousands of real docstrings out of Python's own standard library.

    python examples/python_docs.py docs.parquet

Columns: module, name, kind (module, class, function, method), signature, doc. Sources are read, never run.
"""

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import polars as pl

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "__pycache__"}
Row = tuple[str, str, str, str | None, str]


def docstrings(library: Path) -> Iterator[Row]:
    """Every docstring below `library`, in the order of the files."""
    for file in sorted(library.rglob("*.py")):
        relative = file.relative_to(library)
        if not SKIPPED.intersection(relative.parts):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            yield from _walk(tree, ".".join(relative.with_suffix("").parts).removesuffix(".__init__"), "")


def _walk(node: ast.AST, module: str, owner: str) -> Iterator[Row]:
    if isinstance(node, ast.Module):
        kind, name, signature = "module", module, None
    elif isinstance(node, ast.ClassDef):
        kind, name, signature = "class", owner + node.name, None
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        kind, name = "method" if owner else "function", owner + node.name
        signature = f"({ast.unparse(node.args)})"
    else:
        return
    if doc := ast.get_docstring(node):
        yield module, name, kind, signature, doc
    for child in node.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []:
        yield from _walk(child, module, f"{name}." if kind == "class" else "")


def main(target: str) -> None:
    """Write the table to `target`, a Parquet file."""
    rows = list(docstrings(Path(sysconfig.get_paths()["stdlib"])))
    frame = pl.DataFrame(rows, schema=["module", "name", "kind", "signature", "doc"], orient="row")
    frame.write_parquet(target)
    print(f"{frame.height:,} docstrings of {frame['module'].n_unique():,} modules in {target}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "python_docs.parquet")
