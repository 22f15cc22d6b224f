"""What comes of a run in which something fails; docs/faults.md has the table."""
