"""What comes in: checked arrays, their rows, their classes, and the units in which the flow is solved."""
