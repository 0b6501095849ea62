"""One file a task: EVENTS in, SAMPLES out."""
