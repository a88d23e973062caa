"""The pool: slots, entries, and what is asked of a connection before it is lent."""
