"""The source for any MEDS dataset, with rules that turn its codes into EVENTS codes."""
