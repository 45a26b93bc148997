"""Corpora: a builder for each, one reader for all of them, and the commands for built data sets."""
