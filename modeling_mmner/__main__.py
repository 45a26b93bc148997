"""`python -m modeling_mmner`: the command line."""

from .cli import main

raise SystemExit(main())
