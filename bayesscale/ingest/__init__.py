"""Readers: files on disk become `Curves`, or are refused in a sentence.

Nothing here guesses: columns are named by the caller, text stays text, numbers are parsed by us, and every row keeps
the file and line it came from. A row that cannot be used is set aside with a finding; a file that cannot be trusted is
refused with an `InputError`.
"""
