"""`dql doctor`: every section, where values come from, and what is wrong with how to mend it."""

from pathlib import Path

from dql.doctor import Finding, examine, report


def test_settings_say_where_they_come_from(tmp_path: Path) -> None:
    findings = list(examine({"DQL_HOME": str(tmp_path), "DQL_THREADS": "3"}))
    shown = {finding.name: finding.value for finding in findings}
    assert {"versions", "machine", "storage", "settings"} == {finding.section for finding in findings}
    assert shown["threads"] == "3  (environment)" and shown["model"] == "smollm2  (default)"
    assert shown["models"].startswith(str(tmp_path))


def test_a_wrong_variable_is_a_problem_with_a_remedy() -> None:
    (finding,) = [f for f in examine({"DQL_THREDS": "3"}) if f.problem]
    assert "DQL_THREADS" in finding.problem


def test_problems_stand_out_in_the_report() -> None:
    lines = list(report([Finding("machine", "disk", "0 GiB\x1b", "free some space"), Finding("settings", "a", "b")]))
    assert lines == ["machine", "✗ disk  0 GiB\\e", "        → free some space", "\nsettings", "  a     b"]
