"""Repeating work, and only where nothing of it is done."""
