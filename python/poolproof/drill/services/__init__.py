"""Services that are drilled, in processes of their own: who drives, what they run."""
