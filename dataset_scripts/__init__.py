"""Corpora: a builder for each, one reader for all of them, and what is done with the data sets they make."""
