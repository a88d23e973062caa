"""Services that the drill runs in processes of their own.

Each is a module that starts one and gives it work, and one that runs inside it.
"""
