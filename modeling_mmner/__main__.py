"""`python -m modeling_mmner`: the command line."""

from .cli import main

if __name__ == "__main__":  # a process of `reproduce` reads this file, too
    raise SystemExit(main())
