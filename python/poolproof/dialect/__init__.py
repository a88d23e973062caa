"""SQLAlchemy's view of the native driver: `postgresql+poolproof`."""
