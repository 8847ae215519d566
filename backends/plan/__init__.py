"""From a frozen graph to a plan: which bytes hold each value, which kernel runs when."""
