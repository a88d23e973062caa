"""The drill: what breaks a connection pool, played for real and counted.

`incidents` say what happens, `troupe` and `traffic` how it is played, `trial` is the
process that plays it, `runner` the one that starts those and `tally` puts them
together. `server` is an embedded PostgreSQL, `proxy` a network that can be broken.
"""
