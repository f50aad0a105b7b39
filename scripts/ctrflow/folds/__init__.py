"""Folds of a task, gene selection on their training sections, and the tables that methods get."""
