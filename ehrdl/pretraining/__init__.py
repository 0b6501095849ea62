"""`ehrdl pretrain`: pretraining of an encoder on a hospital's notes, before any label is seen."""
