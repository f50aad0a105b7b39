"""Folds of a task, the genes chosen on their training sections, and the tables that methods see."""
