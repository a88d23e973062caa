"""``poolproof watch``: the pools of all processes, beside what their server sees."""
