"""Twitter-2017: English tweets with pictures (Lu et al. 2018)."""
