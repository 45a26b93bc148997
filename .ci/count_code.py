"""Count the project's lines: code (neither blank, comment nor docstring), all product lines, tests, README.

`--files` lists the code lines of each file, `--most N` fails where the product has more than N of them.
"""

import argparse
import ast
from pathlib import Path

PRODUCT = ("modeling_mmner", "dataset_scripts", "train_accelerate.py")


def code_lines(path: Path) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    text = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str):
                docstrings.update(range(statement.lineno, (statement.end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(
        number not in docstrings and bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in lines
    )


def python_files(*names: str) -> list[Path]:
    return sorted(
        path
        for name in names
        for path in ([Path(name)] if name.endswith(".py") else Path(name).rglob("*.py"))
    )


def all_lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", action="store_true", help="list the files, too")
    parser.add_argument("--most", type=int, help="fail where the product has more lines of code")
    options = parser.parse_args()
    product = {path: code_lines(path) for path in python_files(*PRODUCT)}
    if options.files:
        for path, lines in sorted(product.items(), key=lambda one: -one[1]):
            print(f"{lines:5} {path}")
    code, every = sum(product.values()), sum(map(all_lines, product))
    tests, readme = sum(map(all_lines, python_files("tests"))), all_lines(Path("README.md"))
    print(f"{code:,} lines of code, {every:,} product lines in {len(product)} files")
    print(f"tests {tests:,} lines, README {readme}")
    if options.most is not None and code > options.most:
        raise SystemExit(f"expected at most {options.most:,} lines of code, found {code:,}")


if __name__ == "__main__":
    main()
