"""The sample corpus: generated posts and drawings in four languages, the project's embedded default data."""
