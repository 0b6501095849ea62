"""What the report shows about one output, as plain numbers."""
