"""The control plane, seen from Python: its sessions are apart from every pool."""
