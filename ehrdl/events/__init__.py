"""The EVENTS table: the interface of the sources that write it, and code that writes, checks and lists its files."""
