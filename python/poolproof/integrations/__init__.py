"""Frameworks that poolproof is at home in, a module for each.

Nothing here is needed to be safe: the pool sees forks by itself. A module imports its
framework, so each is imported by name, and nobody else imports them.
"""
