"""What a child does with what came over a fork."""
