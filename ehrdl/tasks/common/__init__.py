"""Parts shared by tasks: hospital stays from EVENTS, cohort rules and the flow chart."""
