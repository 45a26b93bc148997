"""How fast mmner is, as ratios to other programs that do the same work: `python -m tests.benchmarks
--help`.
"""
