"""Any MEDS dataset, with a table of its codes."""
