"""What every incident has; it stands beside this folder, where services find it too."""

from poolproof.drill.incident import HARM, Incident, Measure, Outcome

__all__ = ["HARM", "Incident", "Measure", "Outcome"]
