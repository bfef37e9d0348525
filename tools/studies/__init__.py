"""What ``tools/compare.py`` is made of. Nothing here imports torch: the plan and the tables come at once."""
