"""Resampling: what repeated sampling of problems says about success rates, coverage, verifiers and votes."""
