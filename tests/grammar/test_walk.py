"""Walking and rewriting."""

from hypothesis import HealthCheck, given, settings

from dql.grammar import ast
from dql.grammar.walk import children, transform, walk, with_children
from tests.grammar import trees


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees.statements)
def test_walk_meets_every_node_once_and_transform_keeps_what_it_does_not_change(statement: ast.Statement) -> None:
    met = list(walk(statement))
    assert met[0] is statement
    assert len(met) == 1 + sum(len(list(children(node))) for node in met)
    assert transform(statement, lambda node: node) is statement


def test_transform_rebuilds_from_the_leaves() -> None:
    tree = ast.And((ast.Column(("a",)), ast.Not(ast.Column(("b",))), ast.Row((ast.Column(("b",)),))))
    seen: list[str] = []

    def rename(node: ast.Node) -> ast.Node:
        seen.append(type(node).__name__)
        return ast.Number("1") if node == ast.Column(("b",)) else node

    new = transform(tree, rename)
    assert new == ast.And((ast.Column(("a",)), ast.Not(ast.Number("1")), ast.Row((ast.Number("1"),))))
    assert isinstance(new, ast.And) and new.terms[0] is tree.terms[0]
    assert seen == ["Column", "Column", "Not", "Column", "Row", "And"]


def test_children_can_be_replaced_in_order() -> None:
    tree = ast.Between(ast.Column(("a",)), ast.Number("1"), ast.Number("2"), span=(3, 9))
    swapped = with_children(tree, list(reversed(list(children(tree)))))
    assert swapped == ast.Between(ast.Number("2"), ast.Number("1"), ast.Column(("a",))) and swapped.span == (3, 9)


def test_place_and_spelling_do_not_count_for_equality() -> None:
    assert (
        ast.String("a", raw="'a'", span=(1, 2)) == ast.String("a", raw="$$a$$")
        and len({ast.Number("1"), ast.Number("1")}) == 1
    )


def test_depth_costs_no_stack() -> None:
    tree: ast.Expr = ast.Column(("a",))
    for _ in range(5_000):
        tree = ast.Not(tree)
    assert sum(1 for _ in walk(tree)) == 5_001
    assert isinstance(
        transform(tree, lambda node: ast.Column(("b",)) if isinstance(node, ast.Column) else node), ast.Not
    )
