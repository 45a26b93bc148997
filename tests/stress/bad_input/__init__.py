"""Bad and extreme inputs at every door of the package, each with the outcome that it must have.

`python -m tests.bad_input` runs all of them and prints the counts.
"""
