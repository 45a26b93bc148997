"""Bad and extreme inputs at every door of the package: each is taken, or refused by an error of the package's
own that names the place.
"""
