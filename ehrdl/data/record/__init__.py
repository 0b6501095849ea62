"""The verbalised record: coded facts as text that a note encoder reads."""
