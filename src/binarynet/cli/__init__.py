"""The command line. One file per command; whatever is slow to import is imported inside of the command."""
