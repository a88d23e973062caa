"""What pools can be seen to do: snapshots, scopes, exporters."""
