"""Inference: modes, many small posteriors at once, one large posterior. Needs jax and numpyro only."""
