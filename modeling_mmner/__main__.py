"""`python -m modeling_mmner`: the command `mmner`."""

from .cli import main

if __name__ == "__main__":  # a process that is spawned reads this file, too
    raise SystemExit(main())
