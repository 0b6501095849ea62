"""What a configuration may say: types with their bounds, and the options of training and of a search. Free of torch."""
