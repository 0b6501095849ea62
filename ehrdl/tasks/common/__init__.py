"""What tasks share: hospital stays out of EVENTS, rules of a cohort, its flow chart."""
