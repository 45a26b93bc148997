"""Tests of what reading a corpus found."""

from dataset_scripts.findings import Findings


def test_the_most_harmful_comes_first_with_three_examples():
    """If it failed, a loss would stand below harmless changes, or a thousand lines hide what matters."""
    findings = Findings()
    findings.add("line ends read as LF", number=900, lost=False)
    for number in range(5):
        findings.add("spans left out", f"line {number}", remedy="move them")
    findings.add("pictures not found", "x" * 1000)
    assert [(one.what, one.number, one.lost) for one in findings.sorted()] == [
        *[("spans left out", 5, True), ("pictures not found", 1, True), ("line ends read as LF", 900, False)]
    ]
    lines = ["a: spans left out: 5; move them", "- line 0", "- line 1", "- line 2"]
    assert findings.lines("a: ")[:4] == lines
    assert [len(line) for line in findings.lines()] == [28, 8, 8, 8, 21, 305, 25]
    assert findings.numbers()["line ends read as LF"] == 900
