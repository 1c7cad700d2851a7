"""Answers in the units of the question: shots, accuracy, and how far beyond the data an answer reaches."""
