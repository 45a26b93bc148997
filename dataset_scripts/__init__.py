"""Dataset builders of the project, one package per corpus."""
