"""What an error means, what it costs, and who is told."""

# Public: the one name of a folder that users import from it.
from poolproof.faults.table import register as register
