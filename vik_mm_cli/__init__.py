"""Command lines of the tools, their errors, and files that they write.

A package of its own, which needs only Python's standard library: importing anything of ``vik_mm`` registers everything,
and that takes ten seconds and more.
"""
