"""What an error means, what it costs, and who is told."""
