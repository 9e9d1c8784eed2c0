"""What a fit leaves: one leg or several of a learnt flow, and all that follows them."""
