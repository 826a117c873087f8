"""From maps to pictures: what is shown, how it is colored, marked and laid out."""
