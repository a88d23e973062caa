"""What every incident has; it stands beside this folder, where services find it too."""

from poolproof.drill.incident import Incident, Measure, Outcome

__all__ = ["Incident", "Measure", "Outcome"]
