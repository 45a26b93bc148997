"""The metric as a module of `evaluate`, also a Space of the Hub, which needs nothing of the package."""
