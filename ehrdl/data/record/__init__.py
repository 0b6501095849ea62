"""The verbalised record: data of a patient, written as text for a note encoder."""
