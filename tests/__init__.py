"""Tests. The package is imported before torch: how threads wait is settled then."""

import modeling_mmner  # noqa: F401
