"""The table EVENTS: the interface of a source, and the writing, checking and listing of its rows."""
