"""Twitter-2015: English tweets with pictures (Zhang et al. 2018)."""
