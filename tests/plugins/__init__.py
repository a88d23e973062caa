"""pytest plugins of the test suite, one concern a file."""
