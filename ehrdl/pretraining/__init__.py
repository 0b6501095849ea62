"""`ehrdl pretrain`: an encoder learns the language of a hospital's notes before any label is seen."""
