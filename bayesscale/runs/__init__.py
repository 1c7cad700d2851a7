"""Runs: from curves to a folder of results, and from such a folder back to answers.

`job` does the work behind `bayesscale fit`, `tables` says what it writes, `folder` writes it whole or not at all, `stored` reads
it again, `verdict` compares laws from what was stored, `gallery` draws, `demo` is a run on the bundled data.
"""
