"""The table: every row of every door."""

from . import files, folders, pictures, settings, texts

CASES = [*texts.cases(), *pictures.cases(), *files.cases(), *settings.cases(), *folders.cases()]
