"""What the pictures of the sample corpus show: one module of subjects per kind of picture."""
