"""Real services with their frameworks, each driven through one run and held to account."""
