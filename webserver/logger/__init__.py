"""The logger: one process that owns every log file and reads everybody's pipe."""
